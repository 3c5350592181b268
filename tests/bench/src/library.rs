//! Shared libraries by path, and the functions in them.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A library that stays loaded. Its names are not given to others.
#[derive(Debug)]
pub struct Library {
    handle: *mut libc::c_void,
    /// The file that it was loaded from.
    pub file: PathBuf,
}

impl Library {
    /// Loads a library: by path, or as programs find it. `witness` is a name that it defines.
    ///
    /// # Errors
    ///
    /// A sentence.
    pub fn open(name: &Path, witness: &CStr) -> Result<Library, String> {
        let text = CString::new(name.as_os_str().as_bytes()).map_err(|e| e.to_string())?;
        // SAFETY: a C string; what runs when it is loaded is the library's business.
        let handle = unsafe { libc::dlopen(text.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            return Err(said());
        }
        let mut library = Library { handle, file: PathBuf::new() };
        let address = library.symbol(witness)?;
        // SAFETY: asks which library the address belongs to.
        let file = unsafe {
            let mut info: libc::Dl_info = std::mem::zeroed();
            if libc::dladdr(address, &mut info) == 0 {
                return Err(format!("{witness:?} lies in no library"));
            }
            CStr::from_ptr(info.dli_fname).to_string_lossy().into_owned()
        };
        library.file = Path::new(&file).canonicalize().map_err(|e| format!("{file}: {e}"))?;
        Ok(library)
    }

    /// The address of a name.
    ///
    /// # Errors
    ///
    /// A sentence.
    pub fn symbol(&self, name: &CStr) -> Result<*mut libc::c_void, String> {
        // SAFETY: of a library that is loaded.
        let address = unsafe { libc::dlsym(self.handle, name.as_ptr()) };
        if address.is_null() { Err(said()) } else { Ok(address) }
    }

    /// The file's name, for people.
    pub fn name(&self) -> String {
        self.file.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// What the loader says of the last failure.
fn said() -> String {
    // SAFETY: a C string or null.
    unsafe {
        let text = libc::dlerror();
        if text.is_null() {
            return "the loader does not say why".to_owned();
        }
        CStr::from_ptr(text).to_string_lossy().into_owned()
    }
}
