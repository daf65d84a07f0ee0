# SPDX-License-Identifier: ZPL-2.1
"""Opening the databases that the queues lie in: by URI, by path, or by a ZConfig file.

`open_database` and `close_database` are the doors; every error is a `StorageError` with one
clear line.  `EmbeddedServer` shares a FileStorage with other processes.  Nothing here knows
what a job is.
"""

from zasync.storage.embedded import EmbeddedServer as EmbeddedServer
from zasync.storage.errors import BadConfiguration as BadConfiguration
from zasync.storage.errors import NewerDatabase as NewerDatabase
from zasync.storage.errors import StorageError as StorageError
from zasync.storage.errors import StorageLocked as StorageLocked
from zasync.storage.errors import StorageUnreachable as StorageUnreachable
from zasync.storage.errors import UnknownScheme as UnknownScheme
from zasync.storage.notices import hear_others as hear_others
from zasync.storage.notices import tell_others as tell_others
from zasync.storage.opening import DEFAULT_WAIT as DEFAULT_WAIT
from zasync.storage.opening import close_database as close_database
from zasync.storage.opening import mend as mend
from zasync.storage.opening import open_database as open_database
from zasync.storage.schema import SCHEMA as SCHEMA
from zasync.storage.schema import check_schema as check_schema
from zasync.storage.uri import file_storage_path as file_storage_path
from zasync.storage.uri import is_file_storage as is_file_storage
