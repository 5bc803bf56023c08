from .csv_files import read_csv as read_csv
from .csv_files import write_csv as write_csv
from .folders import write_directory as write_directory
from .json_files import read_json as read_json
from .json_files import to_json as to_json
