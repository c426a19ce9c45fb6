//! Deep features that one run reuses between its denoiser calls (DeepCache: Ma et al. 2023, arXiv:2312.00858).

use super::{Depth, Features};
use crate::generation::FeatureCache;

/// Decides which calls of one run are complete, and holds the features of the last complete call.
#[derive(Debug, Default)]
pub(super) struct KeptFeatures {
    /// Calls from one complete call to the next; `None` disables the cache, so all calls are complete.
    interval: Option<u32>,
    /// The number of calls since the last complete call, including that call.
    calls: u32,
    /// The features of each row of the last complete call.
    kept: Vec<Features>,
}

impl KeptFeatures {
    pub fn new(cache: Option<FeatureCache>) -> KeptFeatures {
        KeptFeatures { interval: cache.map(|cache| cache.interval), ..KeptFeatures::default() }
    }

    /// Decides what a call of `rows` rows computes, and returns the features that each row starts from. Rows of two
    /// calls are matched from the end, because the rows of the negative prompt come first and are added or removed when
    /// guidance begins or ends. A call with more rows than there are stored features is complete.
    pub fn next(&mut self, rows: usize) -> (Depth, Vec<Option<Features>>) {
        let Some(interval) = self.interval else { return (Depth::Full, vec![None; rows]) };
        match self.kept.len().checked_sub(rows) {
            Some(first) if self.calls < interval => {
                self.calls += 1;
                (Depth::Shallow, self.kept[first..].iter().cloned().map(Some).collect())
            }
            _ => {
                self.calls = 1;
                self.kept.clear();
                (Depth::Keeping, vec![None; rows])
            }
        }
    }

    /// Stores the features that a complete call returned. After other calls, `features` is empty.
    pub fn keep(&mut self, features: impl Iterator<Item = Features>) {
        self.kept.extend(features);
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::*;
    use crate::generation::FeatureCacheKind;

    /// The depths of calls with these row counts, one letter per call.
    fn depths(interval: Option<u32>, rows: &[usize]) -> String {
        let mut features =
            KeptFeatures::new(interval.map(|interval| FeatureCache { kind: FeatureCacheKind::DeepCache, interval }));
        let letter = |rows: &usize| {
            let (depth, starts) = features.next(*rows);
            assert_eq!(starts.len(), *rows);
            assert!(starts.iter().all(|start| start.is_some() == (depth == Depth::Shallow)));
            if depth == Depth::Keeping {
                let one = || Features(Tensor::zeros((1, 1, 1), DType::F32, &Device::Cpu).unwrap());
                features.keep((0..*rows).map(|_| one()));
            }
            match depth {
                Depth::Full => 'F',
                Depth::Keeping => 'K',
                Depth::Shallow => 's',
            }
        };
        rows.iter().map(letter).collect()
    }

    #[test]
    fn every_so_many_calls_are_whole_and_those_that_miss_features() {
        assert_eq!(depths(None, &[2; 4]), "FFFF");
        assert_eq!(depths(Some(2), &[2; 5]), "KsKsK");
        assert_eq!(depths(Some(3), &[1; 8]), "KssKssKs");
        assert_eq!(depths(Some(5), &[1, 1, 2, 2, 2, 2, 2, 2]), "KsKssssK", "guidance begins");
        assert_eq!(depths(Some(4), &[2, 2, 1, 1, 1, 1]), "KsssKs", "guidance ends");
        assert_eq!(depths(Some(10), &[1, 2, 1, 2]), "KKss");
    }

    #[test]
    fn a_row_starts_from_its_own_features() {
        let mut features = KeptFeatures::new(Some(FeatureCache { kind: FeatureCacheKind::DeepCache, interval: 5 }));
        features.next(4);
        features.keep((0..4).map(|row| Features(Tensor::new(&[row as f32], &Device::Cpu).unwrap())));
        let mut starts = |rows| {
            let (_, starts) = features.next(rows);
            starts.iter().map(|start| start.as_ref().unwrap().0.to_vec1::<f32>().unwrap()[0]).collect::<Vec<_>>()
        };
        assert_eq!(starts(4), [0., 1., 2., 3.]);
        assert_eq!(starts(2), [2., 3.], "the prompt's rows come last");
    }
}
