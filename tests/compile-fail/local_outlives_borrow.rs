// What a local closure borrows must outlive it, also where it is only dropped.
use trampfd::{Closure, Local};

struct Loud<'a>(&'a String);

impl Drop for Loud<'_> {
    fn drop(&mut self) {
        println!("{}", self.0);
    }
}

fn main() {
    let _f: Local<'_, unsafe extern "C" fn(i32) -> i32>;
    let text = String::from("gone");
    let loud = Loud(&text);
    _f = Closure::local(move |a: i32| {
        let _ = &loud;
        a
    })
    .unwrap();
}
