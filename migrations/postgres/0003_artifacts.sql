-- Results are artifacts: files with a media type, and facts by their kind. Before, all of them were PNG pictures.
--
-- While processes are replaced one by one, those of the version before go on reading and writing the column images and
-- the table generation_previews. A trigger gives each row both columns. A later migration drops the old column and the
-- old table, once no process uses them.

ALTER TABLE generations ADD COLUMN artifacts jsonb;

CREATE FUNCTION generations_images_and_artifacts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.artifacts IS NULL THEN
        NEW.artifacts := (
            SELECT coalesce(jsonb_agg(image || '{"media_type": "image/png", "kind": "picture"}' ORDER BY place), '[]')
            FROM jsonb_array_elements(NEW.images) WITH ORDINALITY AS listed (image, place)
        );
    ELSIF NEW.images IS NULL THEN
        NEW.images := NEW.artifacts;
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER generations_images_and_artifacts BEFORE INSERT OR UPDATE OF images, artifacts ON generations
    FOR EACH ROW WHEN (NEW.images IS NOT NULL OR NEW.artifacts IS NOT NULL)
    EXECUTE FUNCTION generations_images_and_artifacts();

-- As generation_previews: unlogged, without foreign keys, one row for the attempt with its fence.
CREATE UNLOGGED TABLE artifact_previews (
    generation_id uuid   NOT NULL,
    -- Which artifact of the generation; the last preview of each is kept.
    artifact      bigint NOT NULL,
    fence         bigint NOT NULL,
    step          bigint NOT NULL,
    preview_index bigint NOT NULL,
    media_type    text   NOT NULL,
    bytes         bytea  NOT NULL CHECK (octet_length(bytes) <= 65536),
    PRIMARY KEY (generation_id, artifact)
);

-- Encoded files do not become smaller.
ALTER TABLE artifact_previews ALTER COLUMN bytes SET STORAGE EXTERNAL;
