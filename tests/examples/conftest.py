"""The tests of the framework apps import `app`, as they would in a project of their own: `test_apps.py` runs them."""

from __future__ import annotations

from tests.support.example_apps import APPS

collect_ignore = list(APPS)
