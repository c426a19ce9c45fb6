//! Pauses between the layers of a network. At a pause, the caller can interrupt a computation and continue it later.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

/// Is pending once. A network awaits a pause before each layer. So the caller that polls the future of the network
/// decides when the layer runs, and can end the call by dropping this future. The results do not depend on when and on
/// which thread the layers run.
pub(super) async fn pause() {
    futures::pending!();
}

/// Runs a network to its end without interruption.
pub trait ToEnd: Future + Sized {
    /// Polls the future until it is ready. The future must wait for nothing except the next poll.
    fn to_end(self) -> Self::Output {
        let mut call = pin!(self);
        loop {
            if let Poll::Ready(output) = call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return output;
            }
        }
    }
}

impl<F: Future> ToEnd for F {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_polled_once_for_each_layer_and_once_to_end() {
        let mut done = Vec::new();
        let mut call = Box::pin(async {
            for layer in 0..3 {
                pause().await;
                done.push(layer);
            }
        });
        let mut context = Context::from_waker(Waker::noop());
        let polls =
            1 + std::iter::repeat_with(|| call.as_mut().poll(&mut context)).take_while(Poll::is_pending).count();
        drop(call);
        assert_eq!((polls, done), (4, vec![0, 1, 2]));
        assert_eq!(async { pause().await }.to_end(), ());
    }
}
