//! The body of an answer on its way to a client, in pieces.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};

use super::{activity::Open, unread::Room};

/// HTTP/2 takes a whole chunk into its buffers as soon as the client takes one byte: what is longer is given in pieces.
const PIECE: usize = 64 << 10;

/// A body that tells its connection whether it waits for the client or for the server.
pub struct Answer {
    body: Body,
    /// Of the last chunk, what was not given yet.
    rest: Bytes,
    open: Open,
    _room: Option<Room>,
}

impl Answer {
    pub fn new(body: Body, open: Open, room: Option<Room>) -> Answer {
        open.waits_for_client();
        Answer { body, rest: Bytes::new(), open, _room: room }
    }

    fn piece(&mut self) -> Frame<Bytes> {
        self.open.waits_for_client();
        Frame::data(self.rest.split_to(self.rest.len().min(PIECE)))
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.piece())));
        }
        // Whoever polls has room: the client has read.
        self.open.is_read();
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            end => return Poll::Ready(end),
        };
        Poll::Ready(Some(Ok(match frame.into_data() {
            Ok(data) => {
                self.rest = data;
                self.piece()
            }
            Err(trailers) => trailers,
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, hint) = (self.rest.len() as u64, self.body.size_hint());
        let mut whole = SizeHint::new();
        whole.set_lower(hint.lower() + rest);
        if let Some(upper) = hint.upper() {
            whole.set_upper(upper + rest);
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::{super::activity::Activity, *};

    #[tokio::test]
    async fn a_long_chunk_comes_in_pieces_and_whole() {
        for length in [0, 1, PIECE, PIECE + 1, 3 * PIECE] {
            let bytes: Vec<u8> = (0..length).map(|index| index as u8).collect();
            let mut answer = Answer::new(Body::from(bytes.clone()), Activity::new(Instant::now()).begin(), None);
            let (mut seen, mut left) = (Vec::new(), length as u64);
            while !answer.is_end_stream() {
                assert_eq!(answer.size_hint().exact(), Some(left));
                let polled = std::future::poll_fn(|cx| Pin::new(&mut answer).poll_frame(cx)).await;
                let piece = polled.unwrap().unwrap().into_data().unwrap();
                assert!(piece.len() <= PIECE);
                left -= piece.len() as u64;
                seen.extend_from_slice(&piece);
            }
            assert_eq!(seen, bytes);
        }
    }
}
