-- Which generation's request brought along which picture, so that a later request can name it by its digest.
CREATE TABLE generation_inputs (
    -- In hexadecimal digits, of the file in the blob store.
    sha256        TEXT NOT NULL,
    generation_id BLOB NOT NULL REFERENCES generations (id) ON DELETE CASCADE,
    PRIMARY KEY (sha256, generation_id)
) STRICT, WITHOUT ROWID;

-- A deleted generation takes its rows along.
CREATE INDEX generation_inputs_generation ON generation_inputs (generation_id);
