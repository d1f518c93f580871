from .options import Options as Options
from .options import Side as Side
from .options import parse_side as parse_side
from .outcomes import Outcome as Outcome
from .proxy import Started as Started
from .proxy import shadow as shadow
from .tally import Tally as Tally
