"""`uvicorn main:app`: a gateway out of the environment and the working directory's `.env`."""

import os

from attach import create_app, settings_or_exit

app = create_app(settings_or_exit(os.environ))
