from .check import check_device as check_device
from .report import DeviceReport as DeviceReport
