"""`modelport doctor`: what is wrong with this machine for its gateway. `looking/` gathers everything once, with
deadlines, as one value (`facts.py`); what `checks/` say of it is pure.

May import: app.config.model, app.store.checkup, app.supervisor.admin.plan_schemas, backends.inspection.
"""
