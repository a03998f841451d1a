"""Agents: tasks that survive, targets that are allowed, standard A2A passed through.

Its modules are imported one by one (`a2a.tasks`): the public a2a-sdk has this import name too, so that nothing may live
in this file, and wheels leave it out.
"""

import pkgutil

__path__ = pkgutil.extend_path(__path__, __name__)
