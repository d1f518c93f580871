from .comparing import Comparison as Comparison
from .comparing import Difference as Difference
from .description import Contract as Contract
from .documents import read_contract as read_contract
from .reading import contract as contract
