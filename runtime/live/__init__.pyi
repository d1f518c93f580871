from .check import check_live as check_live
from .report import Asked as Asked
from .report import Finding as Finding
from .report import LiveReport as LiveReport
