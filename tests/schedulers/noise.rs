//! torch's CPU generator.

use latentd::diffusion::Noise;
use latentd::diffusion::mt19937::Mt19937;
use latentd::diffusion::noise::Generator;

use crate::goldens::{Goldens, distance, wide};

#[test]
fn noise_is_that_of_torch() {
    let goldens = Goldens::read("randn");
    let mut ran = 0;
    for entry in goldens.index.as_array().unwrap() {
        let key = entry["key"].as_str().unwrap();
        let seeds: Vec<u64> = entry["seed"]
            .as_array()
            .map_or(vec![&entry["seed"]], |seeds| seeds.iter().collect())
            .into_iter()
            .map(|seed| seed.as_u64().unwrap_or_else(|| seed.as_i64().unwrap() as u64))
            .collect();
        let shape = [2, 4, 8, 8];
        let got = match key.split('/').next().unwrap() {
            "randn" | "sequence" | "shape" => {
                let mut generator = Generator::new(seeds[0]);
                let calls = entry["calls"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize);
                calls
                    .flat_map(|n| {
                        let mut out = vec![0.0; n];
                        generator.fill_randn(&mut out);
                        out
                    })
                    .collect()
            }
            "randn_tensor" if key == "randn_tensor/list" => Noise::per_image(&seeds).draw(shape).into_data(),
            "randn_tensor" => Noise::batch(seeds[0]).draw(shape).into_data(),
            "mt19937" => {
                let mut words = Mt19937::new(seeds[0] as u32);
                for wanted in goldens.tensor(key).unwrap() {
                    assert_eq!(f64::from(words.word()), wanted, "{key}");
                }
                continue;
            }
            // Other types and distributions, which nothing here draws.
            _ => continue,
        };
        ran += 1;
        assert!(distance(&wide(&got), &goldens.tensor(key).unwrap()) <= 1e-6, "{key}");
    }
    assert!(ran > 100);
}
