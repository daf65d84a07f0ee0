# SPDX-License-Identifier: ZPL-2.1
"""zasync in Zope 6: `<include package="zasync.integrations.zope" />` in site.zcml switches it on.

A typed section in zope.conf (`%import zasync.integrations.zope`, see `component.xml`) says which
queues there are and whether this process performs jobs; `settings` reads it, `startup` acts on it.
`identity` and `job` are what runs a job as the user who asked for it.  Needs the extra `zope`.
"""
