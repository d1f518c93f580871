from .page import can_write_page as can_write_page
from .page import write_page as write_page
from .report import ParityReport as ParityReport
from .report import file_record as file_record
from .report import read_report as read_report
