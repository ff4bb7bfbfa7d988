//! What the launches of the calling thread are for, where somebody wants to know: a word that a decoder says and that those
//! who write launches down keep. Knows neither.

use std::cell::RefCell;

thread_local! {
    static NAME: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Does `work`, whose launches are for this.
pub fn within<T>(name: String, work: impl FnOnce() -> T) -> T {
    let before = NAME.replace(name);
    let result = work();
    NAME.set(before);
    result
}

/// What the calling thread's launches are for; empty where nobody says.
pub fn current() -> String {
    NAME.with_borrow(Clone::clone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_within_has_the_inner_name() {
        let inner = || (current(), within("b".into(), current), current());
        assert_eq!(within("a".into(), inner), ("a".into(), "b".into(), "a".into()));
        assert_eq!((current(), std::thread::spawn(current).join().unwrap()), Default::default());
    }
}
