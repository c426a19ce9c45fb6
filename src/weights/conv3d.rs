//! The weights of convolutions over frames and places.

use candle_core::Tensor;

use super::{Weights, lay_out::LayOut};

impl Weights {
    /// A convolution's weight that is stored as (out, in, kt, kh, kw), returned as (kt·kh·kw·in, out): the weights of
    /// the kernel's frames follow each other, each as [`Weights::conv2d`] returns them.
    pub fn conv3d(&self, name: &str, outputs: usize, inputs: usize, kernel: [usize; 3]) -> Tensor {
        let [kt, kh, kw] = kernel;
        let places = kt * kh * kw;
        let transposed = LayOut::Transposed { outputs, inputs, places };
        self.get(name, &[outputs, inputs, kt, kh, kw], &[places * inputs, outputs], transposed)
    }
}
