CREATE TABLE shop_order (
    order_no VARCHAR(40) PRIMARY KEY, recipient VARCHAR(32), phone VARCHAR(64), street1 VARCHAR(64),
    city VARCHAR(64), province VARCHAR(32), zip VARCHAR(32), country VARCHAR(2),
    kk_order_ids VARCHAR(400), kk_state VARCHAR(32)
);
CREATE TABLE shop_order_line (order_no VARCHAR(40), sku VARCHAR(64), quantity INTEGER);
INSERT INTO shop_order (order_no, recipient, phone, street1, city, province, zip, country) VALUES
    ('A-1001', 'Sample Customer', '+33 1 00 00 00 00', '1 Example Street', 'Paris', 'Ile-de-France', '75001', 'FR');
INSERT INTO shop_order_line VALUES ('A-1001', 'FWXW00290_WHT_M', 2), ('A-1001', 'FWTS00104_BLK_S', 1);
