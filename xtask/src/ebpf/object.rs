//! BPF objects: made smaller, and compared by what they do.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use object::build::elf::{Builder, SectionData};
use object::elf;
use object::read::elf::ElfFile64;
use object::{
    Endianness, Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionKind, SymbolKind,
};

/// The object without DWARF: the kernel reads BTF, which stays.
pub(super) fn strip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read64(bytes)?;
    for section in &mut builder.sections {
        let name = String::from_utf8_lossy(&section.name);
        let name = name.strip_prefix(".rel").unwrap_or(&name);
        section.delete = name.starts_with(".debug_") || name == ".llvm_addrsig";
    }
    // LLVM names sections and symbols from one table; the writer wants one for each.
    if !builder.sections.iter().any(|section| matches!(section.data, SectionData::SectionString)) {
        let names = builder.sections.add();
        names.name = ".shstrtab".into();
        names.sh_type = elf::SHT_STRTAB;
        names.sh_addralign = 1;
        names.data = SectionData::SectionString;
    }
    // Symbols of deleted sections and relocations by deleted symbols go with them.
    builder.delete_orphans();
    let mut stripped = Vec::new();
    builder.write(&mut stripped)?;
    Ok(stripped)
}

/// The functions, data and maps in which two objects differ. Debug info and the places of things
/// in the file do not count.
pub(super) fn differences(one: &[u8], other: &[u8]) -> Result<Vec<String>> {
    let one = parts(one).context("the committed object is corrupt")?;
    let other = parts(other).context("the built object is corrupt")?;
    let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    Ok(names.into_iter().filter(|name| one.get(*name) != other.get(*name)).cloned().collect())
}

/// One part of an object: its bytes, what they refer to, or a map's definition.
#[derive(Debug, PartialEq)]
enum Part {
    Bytes { bytes: Vec<u8>, refers: Vec<(u64, String)> },
    Map(String),
}

/// Every function, data section and map, by name.
fn parts(bytes: &[u8]) -> Result<BTreeMap<String, Part>> {
    let file = ElfFile64::<Endianness>::parse(bytes)?;
    let mut parts = BTreeMap::new();
    for section in file.sections() {
        match section.kind() {
            SectionKind::Text => parts.extend(functions(&file, &section)?),
            SectionKind::Data | SectionKind::ReadOnlyData | SectionKind::ReadOnlyString => {
                let name = format!("section {}", section.name()?);
                let bytes = section.data()?.to_vec();
                parts.insert(name, Part::Bytes { bytes, refers: Vec::new() });
            }
            _ => {}
        }
    }
    // Sizes, limits and flags of maps are in BTF, among the types.
    let definitions = aya_obj::Object::parse(bytes)?;
    for (name, map) in &definitions.maps {
        let definition = format!(
            "type {} key {} value {} entries {} flags {}",
            map.map_type(),
            map.key_size(),
            map.value_size(),
            map.max_entries(),
            map.map_flags()
        );
        parts.insert(format!("map {name}"), Part::Map(definition));
    }
    Ok(parts)
}

/// The functions of a section: their instructions, and which map or function each refers to.
fn functions<'data>(
    file: &ElfFile64<'data>,
    section: &impl ObjectSection<'data>,
) -> Result<Vec<(String, Part)>> {
    let data = section.data()?;
    let mut functions = Vec::new();
    for symbol in file.symbols() {
        if symbol.kind() != SymbolKind::Text || symbol.section_index() != Some(section.index()) {
            continue;
        }
        let name = symbol.name()?;
        let range = symbol.address()..symbol.address() + symbol.size();
        let bytes = data
            .get(range.start as usize..range.end as usize)
            .with_context(|| format!("function {name} reaches past its section"))?;
        let mut refers = Vec::new();
        for (offset, relocation) in section.relocations() {
            if let (true, RelocationTarget::Symbol(target)) =
                (range.contains(&offset), relocation.target())
            {
                let target = file.symbol_by_index(target)?.name()?.to_owned();
                refers.push((offset - range.start, target));
            }
        }
        functions.push((format!("function {name}"), Part::Bytes { bytes: bytes.to_vec(), refers }));
    }
    Ok(functions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed() -> Vec<u8> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../gateway-ebpf/gateway.bpf.o");
        std::fs::read(path).unwrap()
    }

    #[test]
    fn an_object_differs_from_itself_in_nothing() {
        assert_eq!(differences(&committed(), &committed()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn one_changed_instruction_is_found_by_its_function() {
        let bytes = committed();
        let file = ElfFile64::<Endianness>::parse(bytes.as_slice()).unwrap();
        let section = file.section_by_name("xdp").unwrap();
        let (start, _) = section.file_range().unwrap();
        let mut changed = bytes.clone();
        changed[start as usize] ^= 1;
        assert_eq!(differences(&bytes, &changed).unwrap(), ["function gateway"]);
    }

    #[test]
    fn stripping_twice_changes_nothing_more() {
        let once = strip(&committed()).unwrap();
        assert_eq!(differences(&committed(), &once).unwrap(), Vec::<String>::new());
        assert_eq!(strip(&once).unwrap(), once);
    }
}
