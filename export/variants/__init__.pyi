from .kinds import KINDS as KINDS
from .kinds import Kind as Kind
from .writing import Variant as Variant
from .writing import refuse_other as refuse_other
from .writing import write_variant as write_variant
