"""Settings of Django for a service that has no pages, no sessions and no database of its own."""

import os
import secrets

# Nothing is signed with it here. If you add something that is, give all instances the same key:
# forge variables set DJANGO_SECRET_KEY ...
SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY") or secrets.token_urlsafe()
# Only the platform's sidecar reaches the container.
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "views"
# First of all, so that the invocation is known everywhere. There are no cookies, so there is nothing for CSRF.
MIDDLEWARE = ["middleware.ServiceMiddleware"]
# main.py sets the logging up.
LOGGING_CONFIG = None
USE_TZ = True
