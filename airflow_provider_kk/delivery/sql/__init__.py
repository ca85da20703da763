"""The ledger in a database, by SQLAlchemy Core, and the rate limit, which is a row of it."""
