// A Debian package from a folder of files: deb(5) by dpkg-deb, with everything in it that could differ between two
// builds made the same.
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  copyFileSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { gzipSync } from 'node:zlib'

/** A package's root directory while it is being filled. Every file gets the mode that is named, whatever the umask. */
export class Staging {
  readonly directory: string

  constructor(directory: string) {
    this.directory = directory
    mkdirSync(join(directory, 'DEBIAN'), { recursive: true })
  }

  /** Writes the file that will be at the absolute `path`. */
  write(path: string, content: string | Uint8Array, mode = 0o644): void {
    const file = this.#file(path)
    writeFileSync(file, content)
    chmodSync(file, mode)
  }

  copy(path: string, source: string, mode = 0o644): void {
    const file = this.#file(path)
    copyFileSync(source, file)
    chmodSync(file, mode)
  }

  /** Manual pages and changelogs are compressed (Debian Policy 12.1, 12.7), without time and name. */
  writeCompressed(path: string, content: string): void {
    this.write(`${path}.gz`, gzipSync(content, { level: 9 }))
  }

  /** A file of the package's own administration. */
  control(name: string, content: string, mode = 0o644): void {
    this.write(`/DEBIAN/${name}`, content, mode)
  }

  #file(path: string): string {
    const file = join(this.directory, path)
    mkdirSync(dirname(file), { recursive: true })
    return file
  }
}

/**
 * Writes `output`. `fields` is the control file without Installed-Size.
 *
 * @param epochSeconds the time every file gets.
 */
export function writeArchive(
  staging: Staging,
  { fields, output, epochSeconds }: { fields: string; output: string; epochSeconds: number },
): void {
  const { directory } = staging
  const files = readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && !entry.parentPath.endsWith('/DEBIAN'))
    .map((entry) => join(entry.parentPath, entry.name))
    .sort()
  const sums = files.map((file) => {
    const sum = createHash('md5').update(readFileSync(file)).digest('hex')
    return `${sum}  ${relative(directory, file)}\n`
  })
  const kibibytes = files.reduce((sum, file) => sum + Math.ceil(statSync(file).size / 1024), 0)
  staging.control('md5sums', sums.join(''))
  staging.control('control', `${fields.trimEnd()}\nInstalled-Size: ${kibibytes}\n`)
  const conffiles = files
    .map((file) => `/${relative(directory, file)}`)
    .filter((path) => path.startsWith('/etc/'))
  if (conffiles.length > 0) staging.control('conffiles', `${conffiles.join('\n')}\n`)
  for (const entry of ['.', ...readdirSync(directory, { recursive: true, encoding: 'utf8' })]) {
    const path = join(directory, entry)
    if (statSync(path).isDirectory()) chmodSync(path, 0o755)
    lutimesSync(path, epochSeconds, epochSeconds)
  }
  // Two threads on every machine: how many there are decides where xz cuts its blocks.
  execFileSync(
    'dpkg-deb',
    ['--root-owner-group', '-Zxz', '-z1', '--threads-max=2', '--build', directory, output],
    {
      env: { ...process.env, SOURCE_DATE_EPOCH: String(epochSeconds) },
      stdio: ['ignore', 'ignore', 'inherit'],
    },
  )
}
