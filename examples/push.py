"""Publish an adapter, privately: hf auth login, then python examples/push.py FOLDER OWNER/NAME"""

import sys

import grmp_hf
from grmp_hf.hub import push

folder, name = sys.argv[1:]
print(push(folder, name))  # weights, settings, card and figures; never tables of pictures
print(grmp_hf.load(adapter=name).identity["adapter_revision"])
