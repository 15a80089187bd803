// Builds the Debian packages: bundles the programs, puts every file where it belongs, and has dpkg-deb pack it. Why
// not debhelper: docs/decisions/.
import { execFileSync } from 'node:child_process'
import { globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join, resolve } from 'node:path'
import process from 'node:process'
import { parseArgs } from 'node:util'
import { completionScripts } from '#cli/commands/completion.ts'
import { Staging, writeArchive } from './archive.ts'
import { type Bundle, bundle, type Program } from './bundle.ts'
import { copyright } from './copyright.ts'
import { documentsIn, withoutDeadLinks } from './documents.ts'

const root = resolve(import.meta.dirname, '../..')
const library = '/usr/lib/assay'
const maintainer = 'Assay maintainers <maintainers@assay.example>'
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
  readonly version: string
}

/** What all packages of one build share. */
interface Build {
  readonly version: string
  readonly epochSeconds: number
  readonly architecture: string
  /** The npm package that brings Node. */
  readonly nodeDirectory: string
  readonly work: string
  readonly output: string
}

interface Package {
  readonly name: string
  readonly summary: string
  /** Paragraphs; the first is followed by the others after a line with a full stop. */
  readonly description: readonly string[]
  readonly depends: readonly string[]
  readonly recommends?: readonly string[]
  readonly suggests?: readonly string[]
  readonly bundles: readonly Program[]
  /** npm packages that are installed as they are. */
  readonly packages?: readonly string[]
  /** What its copyright file says about Node. */
  readonly node?: string
  fill(staging: Staging, build: Build): void
}

const packages: readonly Package[] = [
  {
    name: 'assay-common',
    summary: 'hardware-rooted workload identity: what its programs share',
    description: [
      'Assay gives machines and processes SPIFFE identities that start in a TPM and in an HSM.',
      'This package brings the Node.js that the programs are made for, which stands beside any other on the machine, the native addons, and the documentation.',
    ],
    depends: ['systemd (>= 249)'],
    bundles: [],
    packages: ['node-addon-api'],
    node: 'Node.js (/usr/lib/assay/node) and what is compiled into it: see node-notices.gz beside this file.',
    fill(staging, build) {
      staging.copy(`${library}/node`, join(build.nodeDirectory, 'bin/node'), 0o755)
      strip(join(staging.directory, library, 'node'))
      for (const addon of ['assay_host', 'assay_tpm']) {
        const path = `${library}/native/${addon}.node`
        staging.copy(path, join(root, `native/build/Release/${addon}.node`))
        strip(join(staging.directory, path))
      }
      const notices = readFileSync(join(build.nodeDirectory, 'LICENSE'), 'utf8')
      staging.writeCompressed('/usr/share/doc/assay-common/node-notices', notices)
      staging.write(`${library}/package.json`, `${JSON.stringify(runtimeManifest, null, 2)}\n`)
      const docs = join(root, 'docs')
      const files = documentsIn(docs)
      for (const file of files) {
        const path = `/usr/share/doc/assay-common/${file}`
        if (file.endsWith('.md')) {
          const text = readFileSync(join(docs, file), 'utf8')
          staging.write(path, withoutDeadLinks(text, { file, files }))
        } else staging.copy(path, join(docs, file))
      }
      staging.copy('/usr/share/doc/assay-common/CHANGELOG.md', join(root, 'CHANGELOG.md'))
      for (const schema of ['server', 'agent', 'helper', 'ceremony'])
        staging.copy(
          `/usr/share/assay/${schema}.schema.json`,
          join(root, `docs/${schema}.schema.json`),
        )
    },
  },
  {
    name: 'assay-server',
    summary: 'hardware-rooted workload identity: the authority of a trust domain',
    description: [
      'Admits nodes by their TPM, issues their workloads SPIFFE identities (X.509 and JWT), and rotates its own keys, which stay in a PKCS#11 token.',
      "It is started by the operator once /etc/assay/server.yaml names the trust domain and the token. It speaks SPIRE's server API.",
    ],
    depends: ['assay-common (= {version})', 'init-system-helpers (>= 1.60)', 'procps'],
    recommends: ['assay (= {version})'],
    suggests: ['softhsm2', 'apparmor'],
    bundles: ['assay-server', 'assay-signer', 'assay-signer-service'],
    packages: ['pkcs11js'],
    fill(staging) {
      const module = `${library}/node_modules/pkcs11js`
      const source = join(root, 'node_modules/pkcs11js')
      for (const file of ['package.json', 'index.js'])
        staging.copy(`${module}/${file}`, join(source, file))
      const addon = 'build/Release/pkcs11.node'
      staging.copy(`${module}/${addon}`, join(source, addon))
      strip(join(staging.directory, module, addon))
      const signer = ['assay-signer.socket', 'assay-signer@.service']
      daemon(staging, 'server', ['assay-server.service', ...signer])
      manual(staging, 'assay-signer.8')
      staging.copy('/etc/apparmor.d/assay-signer', join(root, 'packaging/apparmor/assay-signer'))
      for (const example of ['hsm-pin.conf', 'hsm-network.conf', 'softhsm.conf'])
        unit(staging, example, `/usr/share/doc/assay-server/examples/${example}`)
      unit(staging, 'assay-server.tmpfiles', '/usr/lib/tmpfiles.d/assay-server.conf')
    },
  },
  {
    name: 'assay-agent',
    summary: 'hardware-rooted workload identity: the agent of a node',
    description: [
      'Proves the node by its TPM 2.0 to an Assay server, and gives each local process the SPIFFE identity it is entitled to, over the SPIFFE Workload API.',
      'It starts at boot once /etc/assay/agent.yaml names the trust domain and the server; an image needs nothing else, and nothing secret.',
    ],
    depends: [
      'assay-common (= {version})',
      'init-system-helpers (>= 1.60)',
      'libtss2-tcti-device0',
      'procps',
      'tpm-udev',
    ],
    recommends: ['assay (= {version})'],
    suggests: ['libtss2-tcti-tabrmd0', 'apparmor'],
    bundles: ['assay-agent'],
    fill(staging) {
      daemon(staging, 'agent', ['assay-agent.service', 'assay-agent.socket'])
      const example = 'program-selectors.conf'
      unit(staging, example, `/usr/share/doc/assay-agent/examples/${example}`)
    },
  },
  {
    name: 'assay',
    summary: 'hardware-rooted workload identity: the command line',
    description: [
      'Administers an Assay server, asks an agent why a process has the identity it has, and fetches identities as a workload does.',
      'It talks to the sockets of server and agent on this machine and has no rights of its own.',
    ],
    depends: ['assay-common (= {version})', 'init-system-helpers (>= 1.60)'],
    recommends: ['libtss2-tcti-device0'],
    suggests: ['assay-agent', 'assay-server'],
    bundles: ['assay'],
    packages: ['uplot'],
    fill(staging) {
      const page = join(root, 'src/console/ui')
      for (const file of globSync('*.{html,css,js,svg}', { cwd: page }).sort())
        staging.copy(`${library}/ui/${file}`, join(page, file))
      for (const file of ['package.json', 'dist/uPlot.esm.js', 'dist/uPlot.min.css'])
        staging.copy(
          `${library}/node_modules/uplot/${file}`,
          join(root, 'node_modules/uplot', file),
        )
      staging.write('/usr/bin/assay', wrapper(['--max-semi-space-size=2'], 'assay'), 0o755)
      manual(staging, 'assay.1')
      unit(staging, 'assay-helper@.service', '/lib/systemd/system/assay-helper@.service')
      const shells = {
        bash: '/usr/share/bash-completion/completions/assay',
        zsh: '/usr/share/zsh/vendor-completions/_assay',
        fish: '/usr/share/fish/vendor_completions.d/assay.fish',
      }
      for (const shell of ['bash', 'zsh', 'fish'] as const)
        staging.write(shells[shell], completionScripts[shell])
    },
  },
]

/** What names that begin with `#` stand for in the bundles; see `imports` in package.json. */
const runtimeManifest = {
  type: 'module',
  imports: { '#native/*': './native/*', '#hsm/signer/main.ts': './assay-signer.mjs' },
}

/** A program that is called by hand runs as the unit has it, but for its arguments. */
function wrapper(flags: readonly string[], program: Program): string {
  return `#!/bin/sh\nexec ${library}/node ${flags.join(' ')} ${library}/${program}.mjs "$@"\n`
}

function daemon(staging: Staging, half: 'server' | 'agent', units: readonly string[]): void {
  const name = `assay-${half}` as const
  for (const file of units) unit(staging, file, `/lib/systemd/system/${file}`)
  unit(staging, `${name}.sysusers`, `/usr/lib/sysusers.d/${name}.conf`)
  staging.copy(`/etc/assay/${half}.yaml`, join(import.meta.dirname, name, `${half}.yaml`))
  staging.copy(`/etc/apparmor.d/${name}`, join(root, 'packaging/apparmor', name))
  staging.copy(
    `/usr/share/doc/${name}/README.Debian`,
    join(import.meta.dirname, name, 'README.Debian'),
  )
  const service = readFileSync(join(root, `packaging/systemd/${name}.service`), 'utf8')
  const start = new RegExp(`^ExecStart=${library}/node (.*) ${library}/${name}\\.mjs `, 'm')
  const [, flags] = start.exec(service) ?? []
  if (flags === undefined) throw new Error(`cannot find ExecStart in ${name}.service`)
  staging.write(`/usr/sbin/${name}`, wrapper([flags], name), 0o755)
  manual(staging, `${name}.8`)
}

function unit(staging: Staging, file: string, path: string): void {
  staging.copy(path, join(root, 'packaging/systemd', file))
}

function manual(staging: Staging, page: string): void {
  const text = readFileSync(join(root, 'docs/man', page), 'utf8')
  staging.writeCompressed(`/usr/share/man/man${page.at(-1)}/${page}`, text)
}

function strip(file: string): void {
  execFileSync('strip', ['--strip-unneeded', '--remove-section=.comment', file])
}

/** The Debian packages whose libraries the package's own programs link. */
function linked(staging: Staging, { work }: Build): readonly string[] {
  const binaries = globSync('usr/lib/assay/{node,**/*.node}', { cwd: staging.directory })
  if (binaries.length === 0) return []
  mkdirSync(join(work, 'debian'), { recursive: true })
  writeFileSync(
    join(work, 'debian/control'),
    'Source: assay\n\nPackage: assay\nArchitecture: any\n',
  )
  const paths = binaries.sort().map((path) => join(staging.directory, path))
  const text = execFileSync('dpkg-shlibdeps', ['-O', ...paths.flatMap((path) => ['-e', path])], {
    cwd: work,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  return text
    .trim()
    .replace(/^shlibs:Depends=/, '')
    .split(', ')
}

function controlFields(of: Package, staging: Staging, build: Build): string {
  const { version, architecture } = build
  const list = (relations: readonly string[] = []): string =>
    relations.join(', ').replaceAll('{version}', version)
  const depends = [...of.depends, ...linked(staging, build)]
  const paragraphs = of.description.flatMap((text, i) => [...(i === 0 ? [] : ['.']), ...wrap(text)])
  const lines: readonly (readonly [string, string])[] = [
    ['Package', of.name],
    ['Source', 'assay'],
    ['Version', version],
    ['Architecture', architecture],
    ['Maintainer', maintainer],
    ['Section', 'admin'],
    ['Priority', 'optional'],
    ['Depends', list(depends)],
    ['Recommends', list(of.recommends)],
    ['Suggests', list(of.suggests)],
    ['Description', [of.summary, ...paragraphs.map((line) => ` ${line}`)].join('\n')],
  ]
  const own = of.name === 'assay' ? 'Source' : ''
  return lines
    .filter(([name, value]) => value !== '' && name !== own)
    .map(([name, value]) => `${name}: ${value}\n`)
    .join('')
}

/** Lines of at most 79 characters. */
function wrap(text: string): readonly string[] {
  const lines: string[] = []
  for (const word of text.split(' ')) {
    const last = lines.at(-1)
    if (last !== undefined && last.length + word.length < 78)
      lines[lines.length - 1] = `${last} ${word}`
    else lines.push(word)
  }
  return lines
}

function changelog({ version, epochSeconds }: Build): string {
  const date = new Date(epochSeconds * 1000).toUTCString().replace('GMT', '+0000')
  return `assay (${version}) unstable; urgency=medium

  * What has changed is in /usr/share/doc/assay-common/CHANGELOG.md.

 -- ${maintainer}  ${date}
`
}

function make(of: Package, bundles: ReadonlyMap<Program, Bundle>, build: Build): string {
  const staging = new Staging(join(build.work, of.name))
  const npm = new Set(of.packages)
  for (const program of of.bundles) {
    const made = bundles.get(program)
    if (made === undefined) throw new Error(`${program} is not bundled`)
    for (const path of [made.file, `${made.file}.map`])
      staging.copy(`${library}/${basename(path)}`, path)
    for (const name of made.packages) npm.add(name)
  }
  of.fill(staging, build)
  const documentation = `/usr/share/doc/${of.name}`
  const contents = { packages: [...npm].sort(), ...(of.node !== undefined && { node: of.node }) }
  staging.write(`${documentation}/copyright`, copyright(contents, root))
  staging.writeCompressed(`${documentation}/changelog`, changelog(build))
  const own = join(import.meta.dirname, of.name)
  for (const script of globSync('{preinst,postinst,prerm,postrm}', { cwd: own }))
    staging.control(script, readFileSync(join(own, script), 'utf8'), 0o755)
  for (const file of globSync('lintian-overrides', { cwd: own }))
    staging.copy(`/usr/share/lintian/overrides/${of.name}`, join(own, file))
  const output = join(build.output, `${of.name}_${build.version}_${build.architecture}.deb`)
  const fields = controlFields(of, staging, build)
  writeArchive(staging, { fields, output, epochSeconds: build.epochSeconds })
  return output
}

async function main(args: readonly string[]): Promise<number> {
  let values: ReturnType<typeof parse>
  try {
    values = parse(args)
  } catch (error) {
    console.error(`packaging/deb/build: ${(error as Error).message}; see --help`)
    return 2
  }
  const { version } = values
  // deb-version(7), of which a hyphen would make part a Debian revision.
  if (!/^\d[A-Za-z0-9.+~]*$/.test(version)) {
    console.error(`packaging/deb/build: '${version}' is no version of a package`)
    return 2
  }
  const architecture = execFileSync('dpkg', ['--print-architecture'], { encoding: 'utf8' }).trim()
  if (values.architecture !== undefined && values.architecture !== architecture) {
    console.error(
      `packaging/deb/build: cannot build for ${values.architecture} on ${architecture}: the addons are compiled, and Node.js is the one that runs here; build in a checkout on a machine of that architecture, or in a container of it`,
    )
    return 1
  }
  const work = mkdtempSync(join(tmpdir(), 'assay-deb-'))
  const output = resolve(values.output)
  mkdirSync(output, { recursive: true })
  const build: Build = {
    version,
    epochSeconds: Number(process.env['SOURCE_DATE_EPOCH']),
    architecture,
    nodeDirectory: resolve(process.execPath, '../..'),
    work,
    output,
  }
  try {
    const wanted = [...new Set(packages.flatMap((one) => one.bundles))]
    const into = join(work, 'bundles')
    const made = await Promise.all(
      wanted.map((program) => bundle(program, { root, output: into, version })),
    )
    const bundles = new Map(made.map((one) => [one.program, one]))
    for (const one of packages) console.log(make(one, bundles, build))
  } finally {
    rmSync(work, { recursive: true })
  }
  return 0
}

const parse = (args: readonly string[]) =>
  parseArgs({
    args: [...args],
    options: {
      output: { type: 'string', default: join(import.meta.dirname, 'output') },
      version: { type: 'string', default: manifest.version },
      architecture: { type: 'string' },
    },
  }).values

process.exitCode = await main(process.argv.slice(2))
