from .kinds import KINDS as KINDS
from .writing import Variant as Variant
from .writing import refuse_other as refuse_other
from .writing import write_variant as write_variant
