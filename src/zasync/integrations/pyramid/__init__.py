# SPDX-License-Identifier: ZPL-2.1
"""zasync in a Pyramid application: `config.include("zasync.integrations.pyramid")`.

Needs pyramid_tm and pyramid_zodbconn, and the extra `pyramid`.  A request then has
`zasync_queue`, `zasync_queues` and `zasync_calls`, in its own transaction; `put_call` and
`call_response` are for views that start something long.  `zasync worker --pyramid` performs the
jobs.
"""

from zasync.integrations.pyramid.inclusion import includeme as includeme
from zasync.integrations.pyramid.views import call_response as call_response
from zasync.integrations.pyramid.views import call_url as call_url
from zasync.integrations.pyramid.views import put_call as put_call
