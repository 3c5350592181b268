//! One relocatable object, read: sections that are loaded, symbols, relocations. Nothing is
//! believed that was not checked against the file's length.

use std::ops::Range;

use object::Endianness;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, Rela, SectionHeader, Sym};

use super::{Error, arch};

/// Alignments up to this: what one page can give.
const MOST_ALIGN: u64 = 4096;

/// A relocatable object, read and checked.
#[derive(Clone, Debug)]
pub struct Object {
    pub(super) name: String,
    /// The file.
    pub(super) file: Vec<u8>,
    /// All of them, by their number in the file.
    pub(super) sections: Vec<Section>,
    /// All of them, by their number; the first means nothing.
    pub(super) symbols: Vec<ObjectSymbol>,
    pub(super) groups: Vec<Group>,
    /// Where the section headers are in the file.
    pub(super) headers: Range<usize>,
}

/// What memory a section needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// None.
    Nothing,
    Code,
    ReadOnly,
    ReadWrite,
    /// A block for each thread.
    Thread,
    /// Tables for the unwinder.
    Unwind,
}

#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) name: String,
    pub(super) used: Use,
    pub(super) align: usize,
    /// Bytes in memory.
    pub(super) len: u64,
    /// Where the bytes are in the file: as many as in memory, or none where all are zero.
    pub(super) data: Range<usize>,
    pub(super) relocations: Vec<Relocation>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Relocation {
    pub(super) offset: u64,
    pub(super) kind: u32,
    pub(super) symbol: usize,
    pub(super) addend: i64,
}

/// Where a symbol is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home {
    Undefined,
    Absolute,
    Common,
    Section(usize),
}

#[derive(Clone, Debug)]
pub(super) struct ObjectSymbol {
    pub(super) name: String,
    pub(super) home: Home,
    pub(super) value: u64,
    pub(super) size: u64,
    pub(super) local: bool,
    /// Another definition may take its place.
    pub(super) weak: bool,
    /// Not seen from outside the set.
    pub(super) hidden: bool,
    /// A thread's variable.
    pub(super) thread: bool,
    pub(super) function: bool,
    pub(super) ifunc: bool,
}

/// Sections of which one copy is loaded per set.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) signature: String,
    pub(super) members: Vec<usize>,
}

/// Reads and checks an object. No part of it is executed or believed; any bytes may be given.
///
/// # Errors
///
/// [`Error::Malformed`]: no ELF relocatable object for this machine, or a broken one.
pub fn parse(file: &[u8]) -> Result<Object, Error> {
    Object::new("object", file)
}

impl Object {
    /// As [`parse`], with the name that errors give.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`].
    pub fn new(name: &str, file: &[u8]) -> Result<Object, Error> {
        read(name, file).map_err(|reason| Error::Malformed { object: name.into(), reason })
    }

    /// The name that errors give.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn bytes(&self, section: usize) -> &[u8] {
        &self.file[self.sections[section].data.clone()]
    }

    /// How errors call a symbol: a section's by the section's name.
    pub(super) fn symbol_name(&self, symbol: usize) -> &str {
        let symbol = &self.symbols[symbol];
        match symbol.home {
            Home::Section(section) if symbol.name.is_empty() => &self.sections[section].name,
            _ => &symbol.name,
        }
    }
}

fn read(name: &str, file: &[u8]) -> Result<Object, String> {
    let text = |e: object::read::Error| e.to_string();
    let header = FileHeader64::<Endianness>::parse(file).map_err(text)?;
    let endian = header.endian().map_err(text)?;
    if endian != Endianness::Little || header.e_machine(endian) != arch::MACHINE {
        return Err("it is for another machine".into());
    }
    if header.e_type(endian) != elf::ET_REL {
        return Err("it is no relocatable object (ET_REL)".into());
    }
    let table = header.sections(endian, file).map_err(text)?;
    let symbol_table = table.symbols(endian, file, elf::SHT_SYMTAB).map_err(text)?;
    let start = header.e_shoff(endian) as usize;
    let headers = start..start + table.len() * size_of::<elf::SectionHeader64<Endianness>>();

    let mut budget = Budget { left: file.len() as u64, names: 16 * file.len() as u64 };
    let mut sections = Vec::new();
    for section in table.iter() {
        let name = table.section_name(endian, section).map_err(text)?;
        let section = read_section(budget.name(name)?, section, endian, file)?;
        if section.used != Use::Nothing {
            budget.take(section.data.len())?;
        }
        sections.push(section);
    }

    let mut symbols = Vec::new();
    for (index, symbol) in symbol_table.enumerate() {
        let name = symbol_table.symbol_name(endian, symbol).map_err(text)?;
        let home = match symbol.st_shndx(endian) {
            elf::SHN_UNDEF => Home::Undefined,
            elf::SHN_ABS => Home::Absolute,
            elf::SHN_COMMON | arch::LARGE_COMMON => Home::Common,
            _ => match symbol_table.symbol_section(endian, symbol, index).map_err(text)? {
                Some(section) if section.0 < sections.len() => Home::Section(section.0),
                _ => return Err(format!("symbol {}: no such section", index.0)),
            },
        };
        let value = symbol.st_value(endian);
        if let Home::Section(section) = home
            && value > sections[section].len
        {
            return Err(format!("symbol {} lies outside of its section", index.0));
        }
        if home == Home::Common && !(value.is_power_of_two() && value <= MOST_ALIGN) {
            return Err(format!("symbol {}: alignment {value:#x}", index.0));
        }
        if name == b"__gnu_lto_slim" {
            return Err("there is no code in it yet: compile with -fno-lto".into());
        }
        let (binding, kind) = (symbol.st_bind(), symbol.st_type());
        symbols.push(ObjectSymbol {
            name: budget.name(name)?,
            home,
            value,
            size: symbol.st_size(endian),
            local: binding == elf::STB_LOCAL,
            // One of these per process is what GNU_UNIQUE wants; any may be the one.
            weak: binding == elf::STB_WEAK || binding == elf::STB_GNU_UNIQUE,
            hidden: matches!(symbol.st_visibility(), elf::STV_HIDDEN | elf::STV_INTERNAL),
            thread: kind == elf::STT_TLS
                || kind == elf::STT_SECTION
                    && matches!(home, Home::Section(s) if sections[s].used == Use::Thread),
            function: kind == elf::STT_FUNC,
            ifunc: kind == elf::STT_GNU_IFUNC,
        });
    }

    let mut groups = Vec::new();
    for section in table.iter() {
        let Some((flag, members)) = section.group(endian, file).map_err(text)? else { continue };
        if flag & elf::GRP_COMDAT == 0 {
            continue;
        }
        let signature = section.sh_info(endian) as usize;
        let symbol = symbols.get(signature).ok_or("a group without a signature")?;
        let signature = match symbol.home {
            Home::Section(section) if symbol.name.is_empty() => &sections[section].name,
            _ => &symbol.name,
        };
        let signature = budget.name(signature.as_bytes())?;
        budget.take(size_of_val(members))?;
        let members = members.iter().map(|member| member.get(endian) as usize);
        let members: Vec<usize> = members.collect();
        if members.iter().any(|&member| member >= sections.len()) {
            return Err("a group of sections that are not there".into());
        }
        groups.push(Group { signature, members });
    }

    for section in table.iter() {
        match section.sh_type(endian) {
            elf::SHT_REL => return Err("relocations without addends (SHT_REL)".into()),
            elf::SHT_CREL => return Err("compact relocations (SHT_CREL)".into()),
            _ => {}
        }
        let Some((list, _)) = section.rela(endian, file).map_err(text)? else { continue };
        let of = section.sh_info(endian) as usize;
        let target = sections.get_mut(of).ok_or("relocations of no section")?;
        if target.used == Use::Nothing {
            continue;
        }
        budget.take(size_of_val(list))?;
        for rela in list {
            let symbol = rela.r_sym(endian, false) as usize;
            if symbol >= symbols.len().max(1) {
                return Err(format!("{}: a relocation to no symbol", target.name));
            }
            target.relocations.push(Relocation {
                offset: rela.r_offset(endian),
                kind: rela.r_type(endian, false),
                symbol,
                addend: rela.r_addend(endian),
            });
        }
    }
    if symbols.is_empty() {
        symbols.push(ObjectSymbol::nothing());
    }
    Ok(Object { name: name.into(), file: file.into(), sections, symbols, groups, headers })
}

/// What reading may take, so that a file whose parts overlap does not take more than it is long.
struct Budget {
    /// Bytes of the file that are not yet part of anything.
    left: u64,
    /// Names may share their ends.
    names: u64,
}

impl Budget {
    fn take(&mut self, len: usize) -> Result<(), String> {
        let left = self.left.checked_sub(len as u64);
        self.left = left.ok_or("parts of the file overlap")?;
        Ok(())
    }

    fn name(&mut self, name: &[u8]) -> Result<String, String> {
        let left = self.names.checked_sub(name.len() as u64);
        self.names = left.ok_or("names are too long for the file")?;
        Ok(String::from_utf8_lossy(name).into_owned())
    }
}

impl ObjectSymbol {
    fn nothing() -> ObjectSymbol {
        ObjectSymbol {
            name: String::new(),
            home: Home::Undefined,
            value: 0,
            size: 0,
            local: true,
            weak: false,
            hidden: false,
            thread: false,
            function: false,
            ifunc: false,
        }
    }
}

fn read_section(
    name: String,
    section: &elf::SectionHeader64<Endianness>,
    endian: Endianness,
    file: &[u8],
) -> Result<Section, String> {
    let flags = section.sh_flags(endian);
    let kind = section.sh_type(endian);
    let has = |flag: u32| flags & u64::from(flag) != 0;
    let used = if !has(elf::SHF_ALLOC) || name.starts_with(".note.") {
        Use::Nothing
    } else if has(elf::SHF_TLS) {
        Use::Thread
    } else if has(elf::SHF_EXECINSTR) {
        Use::Code
    } else if name == ".eh_frame" {
        Use::Unwind
    } else if has(elf::SHF_WRITE) && !written_by_relocation_only(&name, kind) {
        Use::ReadWrite
    } else {
        Use::ReadOnly
    };
    if has(elf::SHF_WRITE) && has(elf::SHF_EXECINSTR) && has(elf::SHF_ALLOC) {
        return Err(format!("{name} would be writable and executable"));
    }
    let align = section.sh_addralign(endian).max(1);
    if used != Use::Nothing && !(align.is_power_of_two() && align <= MOST_ALIGN) {
        return Err(format!("{name}: alignment {align:#x}"));
    }
    let (at, len) = section.file_range(endian).unwrap_or((0, 0));
    let end = at.checked_add(len).filter(|&end| end <= file.len() as u64);
    let Some(end) = end else { return Err(format!("{name} ends behind the file")) };
    let other_start = [".ctors", ".dtors", ".init", ".fini", ".preinit_array"];
    let base = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    if used != Use::Nothing && section.sh_size(endian) > 0 && other_start.contains(&base) {
        let of_use = "compile for .init_array and .fini_array";
        return Err(format!("{name}: what is to run at the start or the end; {of_use}"));
    }
    if used == Use::Code && kind == elf::SHT_NOBITS {
        return Err(format!("{name}: code without bytes"));
    }
    Ok(Section {
        name,
        used,
        align: align as usize,
        len: section.sh_size(endian),
        data: at as usize..end as usize,
        relocations: Vec::new(),
    })
}

/// Whether a section is marked writable for the dynamic linker's sake only.
fn written_by_relocation_only(name: &str, kind: u32) -> bool {
    name.starts_with(".data.rel.ro") || matches!(kind, elf::SHT_INIT_ARRAY | elf::SHT_FINI_ARRAY)
}

impl Section {
    /// Sections of functions that run at the start or the end, in their order: those with a
    /// number by it, then the others.
    pub(super) fn order(&self, start: &str) -> Option<u32> {
        let rest = self.name.strip_prefix(start)?;
        match rest.strip_prefix('.') {
            None => rest.is_empty().then_some(u32::MAX),
            Some(number) => Some(number.parse().unwrap_or(u32::MAX)),
        }
    }
}
