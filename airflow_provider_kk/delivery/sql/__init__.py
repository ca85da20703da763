"""The ledger in a database, by SQLAlchemy Core, and the rate limit, which is one of its rows."""
