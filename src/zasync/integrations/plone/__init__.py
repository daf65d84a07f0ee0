# SPDX-License-Identifier: ZPL-2.1
"""zasync in Plone 6.2: a control panel, `@jobs` in the REST API, and work on many documents.

Plone loads it by itself where zasync is installed; the profile `zasync.integrations.plone:default`
switches it on in a site.  `putting` is what the code of an application calls, `bulk` an example of
long work in small steps, `register` what a site keeps.  Needs the extra `plone`.
"""
