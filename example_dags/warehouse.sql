-- The shop's tables as the example DAGs read them; plain SQL for SQLite, PostgreSQL and MySQL.
CREATE TABLE shop_order (
    order_no     VARCHAR(40) PRIMARY KEY,
    ordered_at   VARCHAR(32) NOT NULL,
    recipient    VARCHAR(200),
    phone        VARCHAR(64),
    street1      VARCHAR(200),
    street2      VARCHAR(200),
    city         VARCHAR(200),
    province     VARCHAR(200),
    zip          VARCHAR(32),
    country      VARCHAR(32),
    kk_order_ids VARCHAR(400),
    kk_state     VARCHAR(32)
);
CREATE TABLE shop_order_line (
    order_no VARCHAR(40) NOT NULL,
    line     INTEGER NOT NULL,
    sku      VARCHAR(64) NOT NULL,
    quantity INTEGER NOT NULL,
    PRIMARY KEY (order_no, line)
);
