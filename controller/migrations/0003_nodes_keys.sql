-- Nodes that are shut out or not believed, and which roots the holders of keys trust.

-- Both end with a rekey: a join token for the same node, used.
ALTER TABLE nodes ADD COLUMN revoked_at_ms INTEGER; -- NULL: it may attach
ALTER TABLE nodes ADD COLUMN quarantined_at_ms INTEGER; -- NULL: its answers count
ALTER TABLE nodes ADD COLUMN quarantined_why TEXT;

-- Observations: what was handed over with the key's latest certificate, and taken. NULL: before this was kept.
ALTER TABLE keys ADD COLUMN root BLOB CHECK (length(root) = 32); -- the root that the certificate leads to
ALTER TABLE keys ADD COLUMN roots BLOB CHECK (length(roots) % 32 = 0); -- every root that its holder trusts
