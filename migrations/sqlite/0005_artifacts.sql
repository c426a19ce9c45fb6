-- Results are artifacts: files with a media type, and facts by their kind. Before, all of them were PNG pictures.

ALTER TABLE generations RENAME COLUMN images TO artifacts;

UPDATE generations
SET artifacts = (
    SELECT json_group_array(json_set(value, '$.media_type', 'image/png', '$.kind', 'picture'))
    FROM (SELECT value FROM json_each(artifacts) ORDER BY key)
)
WHERE artifacts IS NOT NULL;
