# SPDX-License-Identifier: ZPL-2.1
"""The pages of the asynchronous call manager; `pages.zcml` says which names they have.

`management` is for site managers and looks like the rest of the ZMI; `status` and `asking` are
for whoever makes calls; `page` is what they share.  Templates only show what they are given.
"""
