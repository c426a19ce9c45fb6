//! Compares the Canny edges with OpenCV's edges: `cv2.Canny(picture, 100, 200)` of opencv-python-headless 5.0.0 made
//! `NAME_edges.png` from `NAME.png`.

use std::{fs, path::Path};

use latentd::imaging::{canny, decode};

#[test]
fn edges_equal_those_of_opencv() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/canny");
    for name in ["fields", "shapes"] {
        let read = |name: &str| decode(&fs::read(folder.join(format!("{name}.png"))).unwrap(), 255).unwrap();
        let (made, wanted) = (canny(&read(name), 100, 200).to_rgb(), read(&format!("{name}_edges")));
        assert!(wanted.pixels.contains(&255));
        let wrong = made.pixels.iter().zip(&wanted.pixels).filter(|(a, b)| a != b).count() / 3;
        assert_eq!(((made.width, made.height), wrong), ((wanted.width, wanted.height), 0), "{name}");
    }
}
