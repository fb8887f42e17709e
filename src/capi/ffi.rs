// SPDX-License-Identifier: Apache-2.0
//! What crosses the border: checked pointers, texts with an end, structs that may grow.

use std::ffi::{CStr, CString, c_char};
use std::mem::MaybeUninit;

use super::entry::Failure;
use super::status::disagg_status;

/// The value of a pointer that must not be NULL.
pub(super) fn given<T>(pointer: Option<T>, argument: &str) -> Result<T, Failure> {
    pointer.ok_or_else(|| Failure::null(argument))
}

/// A text that must be there, as bytes.
///
/// # Safety
/// `pointer` is NULL or a NUL-terminated string that stays as it is for `'a`.
pub(super) unsafe fn bytes<'a>(
    pointer: *const c_char,
    argument: &str,
) -> Result<&'a [u8], Failure> {
    if pointer.is_null() {
        return Err(Failure::null(argument));
    }
    // SAFETY: not NULL, and the caller vouches for the rest.
    Ok(unsafe { CStr::from_ptr(pointer) }.to_bytes())
}

/// A text that must be there.
///
/// # Safety
/// As [`bytes`].
pub(super) unsafe fn text<'a>(pointer: *const c_char, argument: &str) -> Result<&'a str, Failure> {
    // SAFETY: the caller vouches for the pointer.
    let bytes = unsafe { bytes(pointer, argument) }?;
    std::str::from_utf8(bytes)
        .map_err(|_| Failure::argument(format!("`{argument}` is not UTF-8 text")))
}

/// A text that may be left out.
///
/// # Safety
/// As [`bytes`].
pub(super) unsafe fn optional(
    pointer: *const c_char,
    argument: &str,
) -> Result<Option<String>, Failure> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller vouches for the pointer.
    unsafe { text(pointer, argument) }.map(|text| Some(text.to_owned()))
}

/// A text of a given length, copied.
///
/// # Safety
/// `pointer` is NULL or points to `length` bytes.
pub(super) unsafe fn sized(
    pointer: *const c_char,
    length: usize,
    most: usize,
    argument: &str,
) -> Result<Vec<u8>, Failure> {
    if pointer.is_null() {
        return Err(Failure::null(argument));
    }
    if length > most {
        return Err(Failure::argument(format!(
            "`{argument}` is {length} bytes long; at most {most} are read"
        )));
    }
    // SAFETY: not NULL, the caller vouches for the length, which is far below isize::MAX.
    Ok(unsafe { std::slice::from_raw_parts(pointer.cast::<u8>(), length) }.to_vec())
}

/// The strings of an array that ends with NULL, as bytes.
///
/// # Safety
/// `array` is such an array, of strings that stay as they are for `'a`.
pub(super) unsafe fn strings<'a>(array: *const *mut c_char) -> Vec<&'a [u8]> {
    let mut found = Vec::new();
    let mut at = array;
    // SAFETY: `at` stays within the array, whose last element is NULL; every other is a string.
    while let Some(string) = unsafe { (*at).as_ref().map(|start| CStr::from_ptr(start)) } {
        found.push(string.to_bytes());
        // SAFETY: the element was not the last.
        at = unsafe { at.add(1) };
    }
    found
}

/// A struct that callers size, so that later versions can append fields.
///
/// # Safety
/// The type is `repr(C)`, starts with `size: usize`, has no padding, and is valid when all its
/// bytes are zero.
pub(super) unsafe trait Growing: Copy {
    /// The size that the struct had in the first version that had it.
    const FIRST: usize;
}

/// Declares a [`Growing`] struct; `last` is its last field.
macro_rules! growing {
    ($name:ident, last $field:ident: $type:ty) => {
        const _: () = assert!(
            std::mem::offset_of!($name, size) == 0
                && std::mem::offset_of!($name, $field) + size_of::<$type>() == size_of::<$name>(),
            "`size` must come first, and padding at the end would hide an appended field"
        );
        // SAFETY: `repr(C)`, checked above, and made of numbers, enums with a zero and pointers.
        unsafe impl crate::capi::ffi::Growing for $name {
            const FIRST: usize = size_of::<$name>();
        }
    };
}
pub(super) use growing;

/// A struct larger than this is none of ours: its size was never set.
const LARGEST: usize = 1 << 16;

/// # Safety
/// `pointer` is NULL or points to a readable `usize`.
unsafe fn size_of_callers<T: Growing>(pointer: *const T, argument: &str) -> Result<usize, Failure> {
    if pointer.is_null() {
        return Err(Failure::null(argument));
    }
    // SAFETY: not NULL, and the caller vouches for the rest.
    let size = unsafe { *pointer.cast::<usize>() };
    if !(T::FIRST..=LARGEST).contains(&size) {
        return Err(Failure::argument(format!(
            "`{argument}->size` is {size}: set it to the size of the struct"
        )));
    }
    Ok(size)
}

/// Takes a struct that a caller filled. Fields that it does not have are zero here.
///
/// # Errors
/// NULL; a size that no version has; fields set that this version does not know.
///
/// # Safety
/// `pointer` is NULL or points to as many readable bytes as its first field says.
pub(super) unsafe fn take<T: Growing>(pointer: *const T, argument: &str) -> Result<T, Failure> {
    // SAFETY: the caller vouches for the pointer.
    let size = unsafe { size_of_callers(pointer, argument) }?;
    let known = size.min(size_of::<T>());
    let mut value = MaybeUninit::<T>::zeroed();
    let from = pointer.cast::<u8>();
    // SAFETY: both sides have `known` bytes, and they are apart: `value` is local.
    unsafe { from.copy_to_nonoverlapping(value.as_mut_ptr().cast::<u8>(), known) };
    // SAFETY: the caller's struct has `size` bytes.
    let unknown = unsafe { std::slice::from_raw_parts(from.add(known), size - known) };
    if unknown.iter().any(|byte| *byte != 0) {
        return Err(Failure::argument(format!(
            "`{argument}` sets a field that this library, {}, does not know: it is older than the \
             header",
            env!("CARGO_PKG_VERSION")
        )));
    }
    // SAFETY: zero bytes are valid, and those copied are a caller's struct of the same layout.
    Ok(unsafe { value.assume_init() })
}

/// Fills a caller's struct as far as it goes. Fields that this version does not know become zero.
///
/// # Errors
/// NULL; a size that no version has.
///
/// # Safety
/// `out` is NULL or points to as many writable bytes as its first field says.
pub(super) unsafe fn fill<T: Growing>(
    out: *mut T,
    value: T,
    argument: &str,
) -> Result<(), Failure> {
    // SAFETY: the caller vouches for the pointer.
    let size = unsafe { size_of_callers(out, argument) }?;
    let known = size.min(size_of::<T>());
    let own = size_of::<usize>();
    let (from, to) = ((&raw const value).cast::<u8>(), out.cast::<u8>());
    // SAFETY: both sides have `known` bytes, of which the first `own` are the caller's size and
    // stay; `value` is local. The rest of the caller's struct is its `size` bytes' end.
    unsafe {
        from.add(own).copy_to_nonoverlapping(to.add(own), known - own);
        to.add(known).write_bytes(0, size - known);
    }
    Ok(())
}

/// Fills a caller's array of pointers.
///
/// # Errors
/// NULL; an array that is too small.
///
/// # Safety
/// `out` is NULL or points to `capacity` writable pointers.
pub(super) unsafe fn fill_array(
    out: *mut *const c_char,
    capacity: usize,
    values: impl ExactSizeIterator<Item = *const c_char>,
    argument: &str,
) -> Result<(), Failure> {
    if out.is_null() {
        return Err(Failure::null(argument));
    }
    if capacity < values.len() {
        return Err(Failure::argument(format!(
            "`{argument}` has room for {capacity} names; {} are needed",
            values.len()
        )));
    }
    for (index, value) in values.enumerate() {
        // SAFETY: the index is below the number of values, which is at most the capacity.
        unsafe { out.add(index).write(value) };
    }
    Ok(())
}

/// An item by its index.
pub(super) fn item<T: Copy>(items: &[T], index: usize, what: &str) -> Result<T, Failure> {
    items.get(index).copied().ok_or_else(|| {
        let message = format!("there is no {what} {index}: there are {}", items.len());
        Failure::because(disagg_status::NotFound, message)
    })
}

/// A text that the caller owns from now on.
pub(super) fn hand_over(text: impl Into<Vec<u8>>) -> Result<*mut c_char, Failure> {
    Ok(terminated(text)?.into_raw())
}

fn terminated(text: impl Into<Vec<u8>>) -> Result<CString, Failure> {
    CString::new(text).map_err(|error| {
        let text = String::from_utf8_lossy(&error.into_vec()).into_owned();
        Failure::because(disagg_status::BadPlan, format!("{text:?} holds a NUL byte"))
    })
}

/// An array of texts that ends with NULL, as `execve` takes it.
pub(super) type Vector = Box<[*mut c_char]>;

/// The texts of a handle, which callers borrow: each stays where it is until the handle is freed.
#[derive(Default)]
pub(super) struct Texts(Vec<*mut c_char>);

impl Texts {
    /// Keeps a text.
    pub(super) fn keep(&mut self, text: impl Into<Vec<u8>>) -> Result<*mut c_char, Failure> {
        let pointer = terminated(text)?.into_raw();
        self.0.push(pointer);
        Ok(pointer)
    }

    /// Keeps a text if there is one; NULL without.
    pub(super) fn keep_some(&mut self, text: Option<&str>) -> Result<*mut c_char, Failure> {
        text.map_or(Ok(std::ptr::null_mut()), |text| self.keep(text))
    }

    /// Keeps texts and ends their array with NULL.
    pub(super) fn vector<T: Into<Vec<u8>>>(
        &mut self,
        texts: impl IntoIterator<Item = T>,
    ) -> Result<Vector, Failure> {
        let mut vector =
            texts.into_iter().map(|text| self.keep(text)).collect::<Result<Vec<_>, _>>()?;
        vector.push(std::ptr::null_mut());
        Ok(vector.into())
    }
}

impl Drop for Texts {
    fn drop(&mut self) {
        for text in self.0.drain(..) {
            // SAFETY: it came from `CString::into_raw`, and callers only read it.
            drop(unsafe { CString::from_raw(text) });
        }
    }
}

/// Frees a text that a function handed over. NULL is allowed. A text that is borrowed from a
/// handle must not be given.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn disagg_string_free(string: *mut c_char) {
    super::entry::entry(None, || {
        if !string.is_null() {
            // SAFETY: the caller gives what `hand_over` gave, once.
            drop(unsafe { CString::from_raw(string) });
        }
        Ok(())
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A struct of the next version.
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Later {
        size: usize,
        old: usize,
        new: usize,
    }

    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Now {
        size: usize,
        old: usize,
    }
    growing!(Now, last old: usize);

    fn take_later(later: &Later) -> Result<Now, Failure> {
        // SAFETY: the size is that of the struct behind the pointer.
        unsafe { take((&raw const *later).cast::<Now>(), "options") }
    }

    #[test]
    fn a_newer_callers_struct_is_taken_while_its_new_fields_are_unset() {
        let later = Later { size: size_of::<Later>(), old: 7, new: 0 };
        assert_eq!(take_later(&later).unwrap(), Now { size: later.size, old: 7 });
        let error = take_later(&Later { new: 1, ..later }).unwrap_err();
        assert_eq!(error.status, disagg_status::BadArgument);
        assert!(error.diagnostics.to_string().contains("older than the header"));
    }

    #[test]
    fn a_newer_callers_struct_is_filled_with_zeros_at_its_end() {
        let mut later = Later { size: size_of::<Later>(), old: 7, new: 9 };
        let value = Now { size: 0, old: 8 };
        // SAFETY: the size is that of the struct behind the pointer.
        unsafe { fill((&raw mut later).cast::<Now>(), value, "out") }.unwrap();
        assert_eq!((later.size, later.old, later.new), (size_of::<Later>(), 8, 0));
    }

    #[test]
    fn a_size_that_was_never_set_is_refused() {
        for size in [0, 1, size_of::<Now>() - 1, LARGEST + 1, usize::MAX] {
            let mut now = Now { size, old: 7 };
            // SAFETY: a refused size is all that is read.
            let status = unsafe { fill(&raw mut now, Now { size: 0, old: 8 }, "out") };
            assert_eq!(status.unwrap_err().status, disagg_status::BadArgument);
            assert_eq!(now.old, 7);
        }
    }

    #[test]
    fn a_text_that_c_could_not_hold_is_an_error() {
        assert_eq!(hand_over("a\0b").unwrap_err().status, disagg_status::BadPlan);
    }

    #[test]
    fn an_array_that_is_too_small_stays_as_it_is() {
        let mut array = [std::ptr::null(); 1];
        let names = [c"a".as_ptr(), c"b".as_ptr()];
        // SAFETY: the array has one element.
        let status = unsafe { fill_array(array.as_mut_ptr(), 1, names.into_iter(), "hosts") };
        assert_eq!(status.unwrap_err().status, disagg_status::BadArgument);
        assert!(array[0].is_null());
    }
}
