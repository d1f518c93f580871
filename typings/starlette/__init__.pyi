# Starlette, which Ray Serve answers with: the names that export/targets/runners/ray_app.py uses.
