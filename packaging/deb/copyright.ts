import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

/** What else a package contains besides Assay's own code. */
export interface Contents {
  /** npm packages whose code is in it. */
  readonly packages: readonly string[]
  /** The sentence about Node, where it is in it. */
  readonly node?: string
}

/** The file copyright (Debian Policy 12.5): Assay's licence, and the full text of everybody else's. */
export function copyright(contents: Contents, root: string): string {
  const others = contents.packages.map((name) => thirdParty(join(root, 'node_modules', name)))
  if (contents.node !== undefined) others.push(section(contents.node))
  return [
    'Assay, hardware-rooted workload identity.',
    'Copyright: the Assay authors',
    'Licensed under the Apache License, Version 2.0; on Debian systems its text is in',
    '/usr/share/common-licenses/Apache-2.0.',
    ...others,
  ].join('\n')
}

function thirdParty(directory: string): string {
  const [file] = globSync('{LICENSE,LICENCE,License,license,COPYING}*', { cwd: directory })
  const { name, version, licence, author, text } = readPackage(directory, file)
  return section(
    `${name} ${version}, ${licence}`,
    text ?? `Copyright: ${author}. Licensed under ${licence}, as its package.json says.`,
  )
}

function section(title: string, text = ''): string {
  // The same licence as Debian has it is named by its place there.
  const isApache = /^\s*Apache License\s+Version 2\.0/.test(text)
  const body = isApache
    ? 'Licensed under the Apache License, Version 2.0: /usr/share/common-licenses/Apache-2.0.'
    : text.trim()
  return `\n${'-'.repeat(78)}\n${title}\n\n${body}\n`
}

function readPackage(directory: string, licenceFile: string | undefined) {
  const manifest = JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8')) as {
    readonly name: string
    readonly version: string
    readonly license?: string
    readonly author?: string | { readonly name: string }
  }
  const { name, version, license: licence = 'a licence it does not name', author } = manifest
  return {
    name,
    version,
    licence,
    author: typeof author === 'object' ? author.name : (author ?? 'its authors'),
    text:
      licenceFile === undefined ? undefined : readFileSync(join(directory, licenceFile), 'utf8'),
  }
}
