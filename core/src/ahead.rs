//! Look-ahead: the state that the next packets of a batch will need is fetched from memory while
//! others are worked on.
//!
//! On a hub each packet is another peer's, whose keys and windows have long left the caches: policy,
//! peer, key, one miss after the other. Only the caller knows what comes next, and only he can give
//! the processor a hint, which takes what this crate does without (`unsafe`). So he implements
//! [`Fetch`], and asks [`Sealer`](crate::Sealer) and [`Opener`](crate::Opener) in two or three
//! steps, each some packets ahead of the next, for what a packet is going to need.
//!
//! Nothing depends on it: a step that was left out, or that was wrong, costs a miss.

/// Has memory brought near.
pub trait Fetch<A> {
    /// Begins to fetch `value`, and does not wait for it.
    fn value<T: ?Sized>(&self, value: &T);

    /// The same for all that a key leads to.
    fn key(&self, key: &A);
}
