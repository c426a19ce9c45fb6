//! Tests of torch's CPU random generator and of the Brownian paths of torchsde.

use latentd::diffusion::Noise;
use latentd::diffusion::brownian::BrownianPath;
use latentd::diffusion::generator::Generator;
use latentd::diffusion::mt19937::Mt19937;

use crate::goldens::{Goldens, distance, wide};

#[test]
fn noise_equals_that_of_torch() {
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
            // Other types and distributions, which latentd does not draw.
            _ => continue,
        };
        ran += 1;
        assert!(distance(&wide(&got), &goldens.tensor(key).unwrap()) <= 1e-6, "{key}");
    }
    assert!(ran > 100);
}

#[test]
fn brownian_paths_equal_those_of_torchsde() {
    let goldens = Goldens::read("brownian");
    let entries = goldens.index.as_array().unwrap();
    for entry in entries {
        let key = entry["key"].as_str().unwrap();
        let number = |name: &str| entry[name].as_f64().unwrap();
        let sigmas = goldens.tensor(&format!("{key}/sigmas")).unwrap();
        let wanted = goldens.tensor(key).unwrap();
        let values = wanted.len() / (sigmas.len() - 1);
        let path = BrownianPath::new(entry["seed"].as_u64().unwrap(), number("sigma_min"), number("sigma_max"), values);
        // The sampler goes down the levels, so the sign of the noise changes.
        let unit = |pair: &[f64]| {
            let scale = -(pair[0] - pair[1]).sqrt();
            path.increment(pair[1], pair[0]).into_iter().map(|w| f64::from(w) / scale).collect::<Vec<_>>()
        };
        let got: Vec<f64> = sigmas.windows(2).flat_map(unit).collect();
        assert!(distance(&got, &wanted) <= 2e-6, "{key}: {:e}", distance(&got, &wanted));
    }
    assert!(entries.len() >= 12);
}

#[test]
fn a_brownian_path_does_not_depend_on_the_order_of_queries() {
    let path = || BrownianPath::new(5, 0.1, 14.0, 20);
    let first = path();
    let parts = [first.increment(3.0, 9.0), first.increment(0.1, 3.0), first.increment(9.0, 14.0)];
    let whole = path().increment(0.1, 14.0);
    for (i, whole) in whole.iter().enumerate() {
        assert!((parts.iter().map(|part| part[i]).sum::<f32>() - whole).abs() < 1e-5);
    }
    assert_eq!(path().increment(0.1, 3.0), parts[1]);
    // The path is constant outside its range, and an empty interval has no increment.
    assert_eq!(path().increment(-5.0, 100.0), path().increment(0.1, 14.0));
    assert_eq!(path().increment(4.0, 4.0), [0.0; 20]);
}
