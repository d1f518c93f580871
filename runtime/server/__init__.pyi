from .options import Options as Options
from .supervisor import Started as Started
from .supervisor import serve as serve
