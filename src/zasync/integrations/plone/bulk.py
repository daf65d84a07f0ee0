# SPDX-License-Identifier: ZPL-2.1
"""Change the workflow state of many documents: publish five hundred, as the editor who asked.

`put_transition` is the whole interface.  Each document is judged when its turn comes, by what that
editor may do at that moment; what is not changed is told in the result, with the reason.
"""

from __future__ import annotations

import difflib
import posixpath
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import transaction
from AccessControl import getSecurityManager
from AccessControl.unauthorized import Unauthorized
from Products.CMFCore.WorkflowCore import WorkflowException
from zExceptions import Unauthorized as UnauthorizedRequest

from zasync.foundation import clock
from zasync.foundation.errors import Trouble, classify
from zasync.foundation.text import printable, safe_str
from zasync.integrations.plone.job import index_now
from zasync.integrations.plone.putting import put_job
from zasync.integrations.plone.register import jobs_of, portal
from zasync.integrations.plone.steps import Stepwise
from zasync.integrations.plone.work import LONGEST_REASON, Came, Work
from zasync.interfaces import ZasyncError

MOST_ITEMS = 10_000
LONGEST_ITEM = 2_000  # characters
LONGEST_COMMENT = 2_000
# A step is short, so that it rarely meets what somebody else is at, and cheap to do again.
ITEMS_PER_STEP = 10
SECONDS_PER_STEP = 2.0


class BadRequest(ZasyncError, ValueError):
    """What was asked for cannot be done as it stands; the message says what is wrong."""


# Asking


def put_transition(
    items: Iterable[str], transition: str = "publish", *, comment: str = "", label: str = ""
) -> Any:
    """Have a workflow transition done on `items`, as the present user; answers the call.

    An item is a UID, a path in the site (`/news/a`), or the address of a page of the site.  The
    caller commits.  BadRequest for no items, more than MOST_ITEMS, one that is no text or leads
    out of the site, and a transition that no workflow of the site has.
    """
    site = portal()
    named = _checked_items(items, site)
    _check_transition(transition, site)
    if not isinstance(comment, str) or len(comment) > LONGEST_COMMENT:
        raise BadRequest(f"the comment must be a text of at most {LONGEST_COMMENT} characters")
    work = Work(named)
    site._p_jar.add(work)  # at home with the content, wherever the queue is
    job = Stepwise(change_states, work, transition, comment)
    call = put_job(job, label=label or f"{transition}: {len(named)} items")
    jobs_of(site).keep_work(call, work)
    return call


def _checked_items(items: Iterable[str], site: Any) -> list[str]:
    if isinstance(items, str | bytes):
        raise BadRequest("items must be a list of UIDs or paths, not a single text")
    found = list(dict.fromkeys(_item_name(item, site) for item in items))
    if not found:
        raise BadRequest("there are no items to change")
    if len(found) > MOST_ITEMS:
        raise BadRequest(f"{len(found)} items are more than the {MOST_ITEMS} of one call")
    return found


def _item_name(item: Any, site: Any) -> str:
    """A UID as it is; a path from the site, beginning with '/'."""
    if not isinstance(item, str) or not item.strip() or len(item) > LONGEST_ITEM:
        raise BadRequest(f"an item is a UID, a path or an address, not {safe_str(item, 80)!r}")
    text, root = item.strip(), site.absolute_url()
    if "://" in text:
        if text != root and not text.startswith(root + "/"):
            raise BadRequest(f"{safe_str(text, 200)} is no address in the site {root}")
        text = "/" + unquote(urlsplit(text[len(root) :]).path).strip("/")
    if "/" not in text:
        return text
    path = posixpath.normpath("/" + text.strip("/"))
    if ".." in text.split("/"):
        raise BadRequest(f"the path {safe_str(text, 200)} leads out of where it begins")
    return path


def _check_transition(name: Any, site: Any) -> None:
    known = {
        each
        for workflow in site.portal_workflow.objectValues()
        for each in getattr(workflow, "transitions", {})
    }
    if name in known:
        return
    near = difflib.get_close_matches(str(name), known, n=3)
    hint = (
        f"; near to it: {', '.join(near)}" if near else f"; there are: {', '.join(sorted(known))}"
    )
    raise BadRequest(f"no workflow of the site has a transition {safe_str(name, 80)!r}{hint}")


# Doing


def change_states(work: Work, transition: str, comment: str) -> int:
    """One step: see to the next few items; answers how many are done altogether."""
    site = portal()
    until = clock.monotonic() + SECONDS_PER_STEP
    for item in work.next_items(ITEMS_PER_STEP):
        work.note(*_change(site, item, transition, comment))
        if clock.monotonic() >= until:
            break
    return work.done


def _change(site: Any, item: str, transition: str, comment: str) -> tuple[Came, str]:
    """Change one document, or say why not.  What it did before it raised is undone."""
    before = _savepoint()
    try:
        document = find_document(site, item)
        if document is None:
            return Came.MISSING, "there is nothing there that you may see"
        came = _do_transition(site.portal_workflow, document, transition, comment)
        index_now()  # so that an index that raises is told of the document that it raised for
        return came
    except (Unauthorized, UnauthorizedRequest, WorkflowException) as error:
        before.rollback()
        return Came.REFUSED, _reason(error)
    except Exception as error:
        if classify(error, from_storage=True) is not Trouble.OTHER:
            raise
        before.rollback()
        return Came.FAILED, f"{type(error).__name__}: {_reason(error)}"


def _savepoint() -> Any:
    return transaction.savepoint(optimistic=True)


def _reason(error: Exception) -> str:
    return printable(safe_str(error, LONGEST_REASON), one_line=True)


def find_document(site: Any, item: str) -> Any:
    """What is in the catalog under that UID or path and the present user may view; or None.

    The catalog is asked rather than the path walked, which could lead to a method or a view.
    """
    if item.startswith("/"):
        path = "/".join(site.getPhysicalPath()) + item.rstrip("/")
        query: dict[str, Any] = {"path": {"query": path, "depth": 0}}
    else:
        query = {"UID": item}
    found: Sequence[Any] = site.portal_catalog.unrestrictedSearchResults(**query)
    if len(found) != 1:
        return None
    document = found[0]._unrestrictedGetObject()
    return document if getSecurityManager().checkPermission("View", document) else None


def _do_transition(tool: Any, document: Any, name: str, comment: str) -> tuple[Came, str]:
    workflow = _workflow_with(tool, document, name)
    if workflow is None:
        return Came.REFUSED, f"its workflow has no transition {name!r}"
    state = tool.getInfoFor(document, workflow.state_var, None)
    if state == workflow.transitions[name].new_state_id:
        return Came.ALREADY, ""
    if not workflow.isActionSupported(document, name):
        return Came.REFUSED, f"you may not do {name!r} with it in its state {state!r}"
    tool.doActionFor(document, name, wf_id=workflow.getId(), comment=comment)
    return Came.CHANGED, ""


def _workflow_with(tool: Any, document: Any, transition: str) -> Any:
    for workflow in tool.getWorkflowsFor(document):
        if transition in getattr(workflow, "transitions", {}):
            return workflow
    return None
