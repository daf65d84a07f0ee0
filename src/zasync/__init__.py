# SPDX-License-Identifier: ZPL-2.1
"""A durable, transactional job queue for applications that keep their data in ZODB.

Start at `zasync.interfaces`: it holds the words and the promises.  Importing this
package defines names and does nothing else.
"""

from zasync import local as local
