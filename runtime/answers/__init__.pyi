from .check import check_answers as check_answers
from .report import AnswersReport as AnswersReport
