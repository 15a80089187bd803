// The Debian packages: what is in them, and their life on a machine from installation to purge. Each test of the
// machine goes on where the one before left it.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { access, chmod, cp, mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { promisify } from 'node:util'
import { DebianMachine, makeRoot, noMachine, removeRoot } from '../support/debian-machine.ts'
import { type Swtpm, startTestTpm } from '../support/swtpm.ts'

const run = promisify(execFile)
const root = new URL('../..', import.meta.url).pathname
const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as {
  readonly version: string
}
const previous = '0.0.1'
const names = ['assay', 'assay-agent', 'assay-common', 'assay-server']
const agentUnit = 'assay-agent.service'
const serverUnit = 'assay-server.service'
const signerUnit = 'assay-signer@.service'
const helperUnit = 'assay-helper@signalled.service'

/** What apt would bring beside our own packages, and what stands for the hardware. */
const debianPackages = [
  'libatomic1',
  'libstdc++6',
  'libtss2-tctildr0',
  'libtss2-rc0',
  'libtss2-tcti-device0',
  'libtss2-tcti-swtpm0',
  'procps',
  'tpm-udev',
  'softhsm2',
]

/**
 * Builds the packages. @returns their files, by name.
 *
 * @param elsewhere build as somebody with other habits would, whose checkout is in this directory.
 */
async function build(
  output: string,
  { as = version, elsewhere }: { readonly as?: string; readonly elsewhere?: string } = {},
): Promise<ReadonlyMap<string, string>> {
  const args = ['--output', output, '--version', as]
  if (elsewhere === undefined) await run(join(root, 'packaging/deb/build'), args)
  else {
    await mkdir(elsewhere)
    const commands =
      'root=$0 there=$1; shift; mount --bind "$root" "$there"; umask 077; cd /; exec "$there/packaging/deb/build" "$@"'
    await run('unshare', ['--mount', 'bash', '-ec', commands, root, elsewhere, ...args], {
      env: { ...process.env, TZ: 'Asia/Tokyo', LC_ALL: 'C' },
    })
  }
  const files = (await readdir(output)).filter((name) => name.endsWith('.deb'))
  return new Map(files.map((file) => [file.split('_')[0] ?? '', join(output, file)]))
}

describe('the Debian packages', { skip: await noMachine() }, () => {
  let work: string
  let machineRoot: string
  let packages: ReadonlyMap<string, string>
  let again: ReadonlyMap<string, string>
  let tpm: Swtpm
  let machine: DebianMachine
  let noBoot: string | undefined
  /** What `assay setup server` says to run on the nodes. */
  let onNode: readonly string[]
  /** The agent's SPIFFE ID, once it is admitted. */
  let agentId: string
  let untouched: ReadonlySet<string>
  let lintian: Promise<string>

  before(async () => {
    work = await mkdtemp('/var/tmp/assay-packages-')
    const building = async () => {
      packages = await build(join(work, 'new'))
      again = await build(join(work, 'again'), { elsewhere: join(work, 'elsewhere') })
      await build(join(work, 'old'), { as: previous })
    }
    const [made] = await Promise.all([makeRoot(debianPackages), building()])
    // It takes as long as half of the tests.
    lintian = run('lintian', ['--allow-root', ...packages.values()]).then(
      ({ stdout }) => stdout,
      (error) => `${error.stdout}${error.stderr}`,
    )
    machineRoot = made
    for (const age of ['old', 'new'])
      await cp(join(work, age), join(machineRoot, 'srv', age), { recursive: true })
    tpm = await startTestTpm()
    await chmod(tpm.directory, 0o755)
    for (const socket of ['sock', 'sock.ctrl']) await chmod(join(tpm.directory, socket), 0o666)
    try {
      machine = await bootMachine()
      untouched = await filesOf(machine)
    } catch (error) {
      // Nothing of ours is on it yet: it is this place that cannot boot containers.
      noBoot = (error as Error).message.split('\n')[0]
    }
  })

  after(async () => {
    await lintian
    await machine?.[Symbol.asyncDispose]()
    await tpm?.[Symbol.asyncDispose]()
    if (machineRoot !== undefined) await removeRoot(machineRoot)
    await rm(work, { recursive: true, force: true })
  })

  const bootMachine = () =>
    DebianMachine.boot(machineRoot, { binds: [`${tpm.directory}:/run/swtpm`] })

  /** A test on the machine; skipped where there can be none. */
  const step = (title: string, test: () => Promise<void>): void => {
    void it(title, async (context) => {
      if (noBoot === undefined) await test()
      else context.skip(noBoot)
    })
  }

  const apt = (...args: readonly string[]) =>
    machine.run(['apt-get', '-y', '-q', '--no-install-recommends', ...args])
  const installAll = (age: 'old' | 'new', ...options: readonly string[]) =>
    machine
      .sh(`ls /srv/${age}/*.deb`)
      .then((files) => apt('install', ...options, ...files.split('\n')))
  const journal = (unit: string) =>
    machine.run(['journalctl', '--no-pager', '--output=cat', `--unit=${unit}`])
  const assay = (...args: readonly string[]) => machine.run(['assay', ...args])
  const setup = (half: 'server' | 'agent', ...options: readonly string[]) =>
    machine.try(['assay', 'setup', half, '--answers', `/root/${half}-answers.yaml`, ...options])
  const fetchAsWeb = () => machine.try(['assay', 'fetch', 'x509', '--json'], { user: 'web' })
  const webIsServed = () =>
    machine.until(['assay', 'fetch', 'x509', '--json'], ({ status }) => status === 0, {
      user: 'web',
    })
  const doctored = async () => (await machine.try(['assay', 'doctor', 'server'])).stdout
  const pidOf = (unit: string) => machine.property(unit, 'MainPID')

  it('are four, and the same bytes whoever builds them', async () => {
    assert.deepEqual([...packages.keys()].sort(), names)
    for (const [name, file] of packages) {
      const [one, two] = await Promise.all([file, again.get(name) ?? ''].map(sha256))
      assert.equal(one, two, name)
    }
  })

  it('are refused for an architecture that this machine is not', async () => {
    const other = ['--architecture', 'riscv64', '--output', join(work, 'other')]
    await assert.rejects(run(join(root, 'packaging/deb/build'), other), {
      code: 1,
      stderr: /cannot build for riscv64 on \w+: .*on a machine of that architecture/,
    })
  })

  it('hold the programs with the runtime that is pinned', async () => {
    const { stdout } = await run(process.execPath, ['--version'])
    const directory = join(work, 'unpacked')
    await run('dpkg-deb', ['--extract', packages.get('assay-common') ?? '', directory])
    const packed = await run(join(directory, 'usr/lib/assay/node'), ['--version'])
    assert.equal(packed.stdout, stdout)
  })

  it('hold documents that refer to nothing that is not there', async () => {
    const directory = join(work, 'unpacked/usr/share/doc/assay-common')
    const files = (await readdir(directory, { recursive: true })).filter((file) =>
      /\.md$/.test(file),
    )
    assert.ok(files.includes('console.md') && files.includes('operations/keys.md'))
    for (const file of files) {
      const text = await readFile(join(directory, file), 'utf8')
      for (const [, target = ''] of text.matchAll(/\]\((?!https?:|#)([^)#\s]+)/g))
        await access(join(directory, file, '..', target)).catch(() =>
          assert.fail(`${file} refers to ${target}`),
        )
    }
  })

  for (const profile of ['assay-server', 'assay-signer', 'assay-agent'])
    it(`have an AppArmor profile ${profile} that can be read`, async () => {
      await run('apparmor_parser', ['-QK', join(root, 'packaging/apparmor', profile)])
    })

  for (const [unit, dropIns, worst] of [
    [serverUnit, [], 1.5],
    [signerUnit, [], 0.5],
    [signerUnit, ['hsm-pin.conf', 'softhsm.conf'], 0.5],
    [agentUnit, [], 2.2],
    [agentUnit, ['program-selectors.conf'], 2.2],
  ] as const)
    it(`expose no more than ${worst} by ${[unit, ...dropIns].join(' with ')}`, async () => {
      const directory = await mkdtemp(join(work, 'unit-'))
      const file = join(directory, unit)
      await cp(join(root, 'packaging/systemd', unit), file)
      for (const dropIn of dropIns)
        await cp(join(root, 'packaging/systemd', dropIn), join(`${file}.d`, dropIn))
      const { stdout } = await run('systemd-analyze', ['security', '--offline=true', file])
      const [, score] = /Overall exposure level for .*: ([\d.]+)/.exec(stdout) ?? []
      assert.ok(Number(score) <= worst, `${score}`)
    })

  step('are installed without starting anything', async () => {
    await installAll('old')
    assert.equal(await machine.run(['assay', '--version']), previous)
    assert.equal(await machine.run(['assay-server', '--version']), previous)
    assert.equal(await machine.run(['assay-agent', '--version']), previous)
    assert.equal(await machine.property(serverUnit, 'UnitFileState'), 'disabled')
    assert.equal(await machine.property(agentUnit, 'UnitFileState'), 'enabled')
    for (const unit of [serverUnit, agentUnit, 'assay-agent.socket'])
      assert.equal(await machine.property(unit, 'ActiveState'), 'inactive', unit)
    const sockets = ['assay-agent.socket', 'assay-signer.socket']
    const installed = [...sockets, serverUnit, signerUnit, agentUnit, 'assay-helper@.service']
    const { stderr } = await machine.try(['systemd-analyze', 'verify', '--man=no', ...installed])
    assert.equal(stderr, '')
    const users = await machine.run(['id', 'assay-server', 'assay-signer', 'assay-agent'])
    assert.match(users, /^uid=\d+.*\nuid=\d+.*\nuid=\d+/)
  })

  step('come with a configuration that lacks what the operator must say', async () => {
    const server = await machine.try(['assay-server', 'validate', '-c', '/etc/assay/server.yaml'])
    assert.equal(server.status, 2)
    assert.deepEqual(keysIn(server.stderr), ['trust_domain', 'key_manager'])
    const agent = await machine.try(['assay-agent', 'validate', '-c', '/etc/assay/agent.yaml'])
    assert.equal(agent.status, 2)
    assert.deepEqual(keysIn(agent.stderr), [
      'exactly one of trust_bundle_path, trust_bundle_url, insecure_bootstrap must be given',
      'trust_domain',
      'server_address',
    ])
  })

  step('are not started again and again where somebody has to act', async () => {
    await machine.try(['systemctl', 'start', agentUnit])
    assert.equal(await machine.property(agentUnit, 'ActiveState'), 'failed')
    assert.equal(await machine.property(agentUnit, 'ExecMainStatus'), '2')
    assert.match(await journal(agentUnit), /agent\.yaml.*trust_domain: is missing/)
    // A workload that connects has it tried again, a few times.
    await machine.try(['assay', 'fetch', 'x509', '--timeout', '5s'])
    await machine.propertyBecomes('assay-agent.socket', 'Result', /trigger-limit-hit/)
    const starts = await journal(agentUnit).then((text) => text.match(/trust_domain: is missing/g))
    assert.ok((starts?.length ?? 0) <= 7, `${starts?.length} starts`)
  })

  step('rehearse an authority, and write nothing', async () => {
    await machine.sh(`
      mkdir -p /etc/systemd/system/assay-server.service.d
      cp /usr/share/doc/assay-server/examples/softhsm.conf /etc/systemd/system/assay-server.service.d/
      systemctl daemon-reload
      runuser -u assay-server -G softhsm -- softhsm2-util --init-token --free --label assay --pin 123456 --so-pin 987654
      install -m 0600 /dev/null /root/pin
      printf '123456\\n' > /root/pin
      printf '%s\\n' > /root/server-answers.yaml \\
        'trust_domain: example.org' 'address: 127.0.0.1' 'keys: pkcs11' \\
        'module: /usr/lib/softhsm/libsofthsm2.so' 'token_label: assay' 'pin_file: /root/pin'`)
    const before = await stateOf(machine)
    const { status, stderr } = await setup('server', '--dry-run')
    assert.equal(status, 0, stderr)
    assert.match(stderr, /^ {2}\+ trust_domain: example\.org$/m)
    assert.match(stderr, /the PIN goes into .*\/hsm-pin, encrypted for this machine/)
    const { stdout } = await setup('server', '--dry-run', '--json')
    assert.equal(JSON.parse(stdout).signer, 'service')
    assert.equal(await stateOf(machine), before)
    assert.equal(await machine.property(serverUnit, 'ActiveState'), 'inactive')
    // As it was before the signer had a unit of its own; it gets that further below.
    await machine.sh(`echo 'signer: server' >> /root/server-answers.yaml`)
  })

  step('say where a PIN goes that systemd cannot encrypt', async () => {
    const [file, creds] = ['/root/elsewhere/hsm-pin', '/usr/bin/systemd-creds']
    const elsewhere = ['--config', '/root/elsewhere/server.yaml', '--no-start']
    await machine.run(['mount', '--bind', '/bin/false', creds])
    const { status, stderr } = await setup('server', ...elsewhere)
    const refused = await setup('server', ...elsewhere, '--pin-store', 'credential')
    await machine.run(['umount', creds])
    assert.equal(status, 0, stderr)
    assert.match(stderr, /^warning: the PIN is not encrypted .* because systemd-creds.*: it goes /m)
    const kept = await machine.sh(`stat -c "%a %U" ${file}; cat ${file}; rm -r /root/elsewhere`)
    assert.equal(kept, '400 assay-server\n123456')
    assert.notEqual(refused.status, 0)
    assert.match(refused.stderr, /cannot keep the PIN as a credential: .*--pin-store file/)
  })

  step('set up an authority with an HSM, its PIN encrypted for this machine', async () => {
    const { status, stdout, stderr } = await setup('server')
    assert.equal(status, 0, stderr)
    const said =
      /^on each node: assay setup agent (--trust-domain example\.org --server-address 127\.0\.0\.1 --bundle-fingerprint [0-9a-f]{64})$/m
    onNode = said.exec(stdout)?.[1]?.split(' ') ?? []
    assert.notDeepEqual(onNode, [], stdout)
    assert.equal(await machine.property(serverUnit, 'UnitFileState'), 'enabled')
    assert.match(
      await machine.sh('grep ^key_manager /etc/assay/server.yaml'),
      /^key_manager: \{ pkcs11: \{ module: \S+, token_label: assay \} \}$/,
    )
    await machine.run(['assay-server', 'validate', '-c', '/etc/assay/server.yaml'])
    assert.match(
      await machine.property(serverUnit, 'StatusText'),
      /^trust domain example\.org, port 8081, keys in pkcs11 token "assay"/,
    )
    assert.equal(
      await machine.sh(
        'stat -c "%A %U %G %n" /run/assay /run/assay/server.sock /var/lib/assay/server',
      ),
      [
        'drwxrwxr-t root assay-server /run/assay',
        'srwxrwx--- assay-server assay-server /run/assay/server.sock',
        'drwx------ assay-server assay-server /var/lib/assay/server',
      ].join('\n'),
    )
    assert.doesNotMatch(await machine.sh('cat /etc/assay/credentials/hsm-pin'), /123456/)
  })

  step('set nothing up anew where all is as it was answered', async () => {
    const [before, pid] = [await stateOf(machine), await pidOf(serverUnit)]
    const again = await setup('server', '--json')
    assert.equal(again.status, 0, again.stderr)
    assert.deepEqual(
      (({ changed, started, pin_store }) => ({ changed, started, pin_store }))(
        JSON.parse(again.stdout),
      ),
      { changed: false, started: true, pin_store: 'credential' },
    )
    await machine.run(['rm', '/root/pin'])
    const without = await setup('server')
    assert.equal(without.status, 0, without.stderr)
    assert.match(without.stderr, /there is no \/root\/pin: the PIN that is kept already stays/)
    assert.equal(await stateOf(machine), before)
    assert.equal(await pidOf(serverUnit), pid)
  })

  step('make a node with a TPM that waits to be approved, then serves', async () => {
    await machine.sh(`
      useradd --system web
      printf 'tcti: swtpm:path=/run/swtpm/sock\\n' > /root/agent-answers.yaml`)
    const before = await stateOf(machine)
    const rehearsed = await setup('agent', ...onNode, '--dry-run')
    assert.equal(rehearsed.status, 0, rehearsed.stderr)
    const other = onNode.with(-1, '00'.repeat(32))
    assert.match((await setup('agent', ...other)).stderr, /\[fingerprint-mismatch\]/)
    assert.equal(await stateOf(machine), before)
    const { status, stdout, stderr } = await setup('agent', ...onNode)
    assert.equal(status, 0, stderr)
    const [, hash = ''] = /^endorsement key: +([0-9a-f]{64})$/m.exec(stdout) ?? []
    assert.equal(await machine.read('/etc/assay/bundle.pem'), `${await assay('bundle', 'show')}\n`)
    assert.equal(await machine.property(agentUnit, 'UnitFileState'), 'enabled')
    // Ready, though nobody knows the node yet: what waits for it at boot would wait for an operator otherwise.
    assert.equal(await machine.property(agentUnit, 'ActiveState'), 'active')
    const pending = await machine.until(['assay', 'inventory', 'pending', '--json'], (of) =>
      /"pending"/.test(of.stdout),
    )
    assert.match(await machine.property(agentUnit, 'StatusText'), /^not attested yet: /)
    assert.match(pending, new RegExp(hash))
    await assay('inventory', 'approve', hash.slice(0, 16), '--node-name', 'n1')
    await machine.run(['systemctl', 'restart', agentUnit])
    agentId = `spiffe://example.org/spire/agent/tpm/${hash}`
    await assay(
      ...['entry', 'create', '--parent-id', agentId],
      ...['--spiffe-id', 'spiffe://example.org/web', '--selector', 'unix:user:web'],
      ...['--entry-id', 'web', '--hint', 'web'],
    )
    assert.match(await webIsServed(), /spiffe:\/\/example\.org\/web/)
    assert.equal((await machine.try(['assay', 'fetch', 'x509'], { user: 'games' })).status, 4)
    await machine.propertyBecomes(
      agentUnit,
      'StatusText',
      /^attested, serving 0 streams from \d entr(y|ies), SVID renews in \d+ min, spiffe:\/\/example\.org\/spire\/agent\/tpm\//,
    )
    assert.equal(
      await machine.sh(
        'stat -c "%A %U %G %n" /run/assay/agent /run/assay/agent/api.sock /run/assay/agent-admin',
      ),
      [
        'drwxr-xr-x root root /run/assay/agent',
        'srw-rw-rw- root root /run/assay/agent/api.sock',
        'drwxr-x--- assay-agent assay-agent /run/assay/agent-admin',
      ].join('\n'),
    )
  })

  step('set up the same node again, and change nothing', async () => {
    const [before, pid] = [await stateOf(machine), await pidOf(agentUnit)]
    const { status, stdout, stderr } = await setup('agent', ...onNode, '--json')
    assert.equal(status, 0, stderr)
    const { changed, started, endorsement_key_hash: hash } = JSON.parse(stdout)
    assert.deepEqual({ changed, started }, { changed: false, started: true })
    assert.ok(agentId.endsWith(`/${hash}`))
    assert.equal(await stateOf(machine), before)
    assert.equal(await pidOf(agentUnit), pid)
  })

  step('say what program a process is, with the drop-in', async () => {
    await machine.sh(`
      mkdir -p /etc/systemd/system/assay-agent.service.d
      cp /usr/share/doc/assay-agent/examples/program-selectors.conf /etc/systemd/system/assay-agent.service.d/
      systemctl daemon-reload
      systemctl restart assay-agent`)
    await assay(
      ...['entry', 'create', '--parent-id', agentId],
      ...['--spiffe-id', 'spiffe://example.org/cli', '--selector', 'unix:path:/usr/lib/assay/node'],
    )
    await machine.until(
      ['assay', 'fetch', 'x509', '--json'],
      ({ stdout }) => /example\.org\/cli/.test(stdout),
      { user: 'games' },
    )
  })

  step('keep identities in files, and have units and processes read them again', async () => {
    // One helper is root and reloads a unit; the other is the user of the program, and signals it.
    await machine.sh(`
      mkdir -p /etc/assay/helper /etc/systemd/system/assay-helper@signalled.service.d
      for name in reloaded signalled; do
        printf '%s\\n' "cert_dir: /run/assay-helper/$name" 'svid_and_key_file_name: web.pem' \\
          > /etc/assay/helper/$name.yaml
        printf '%s\\n' '[Unit]' "Requires=assay-helper@$name.service" "After=assay-helper@$name.service" \\
          '[Service]' User=web "RuntimeDirectory=$name" > /etc/systemd/system/$name.service
      done
      printf '%s\\n' 'owner: web' 'hint: files' 'reload_unit: reloaded.service' >> /etc/assay/helper/reloaded.yaml
      printf '%s\\n' 'hint: web' 'pid_file_name: /run/signalled/pid' 'renew_signal: SIGUSR1' >> /etc/assay/helper/signalled.yaml
      printf '%s\\n' '[Service]' User=web CapabilityBoundingSet= \\
        > /etc/systemd/system/assay-helper@signalled.service.d/user.conf
      printf '%s\\n' 'ExecStart=/bin/sleep infinity' \\
        'ExecReload=/bin/cp /run/assay-helper/reloaded/web.pem /run/reloaded/read.pem' >> /etc/systemd/system/reloaded.service
      cat >> /etc/systemd/system/signalled.service <<'END'
ExecStart=/bin/sh -c 'trap "cp /run/assay-helper/signalled/web.pem /run/signalled/read.pem" USR1; echo $$$$ > /run/signalled/pid; while :; do sleep 0.1; done'
END
      systemctl daemon-reload`)
    const options = ['--parent-id', agentId, '--selector', 'unix:user:root', '--entry-id', 'files']
    const hint = ['--hint', 'files']
    await assay('entry', 'create', '--spiffe-id', 'spiffe://example.org/files', ...options, ...hint)
    // They are ready when their helpers are.
    await machine.run(['systemctl', 'start', 'reloaded', 'signalled'])
    await machine.run(['systemctl', 'enable', helperUnit])
    for (const [name, entry] of [
      ['reloaded', 'files'],
      ['signalled', 'web'],
    ] as const) {
      const [unit, file] = [`assay-helper@${name}.service`, `/run/assay-helper/${name}/web.pem`]
      assert.match(await machine.property(unit, 'StatusText'), new RegExp(`example\\.org/${entry}`))
      assert.equal(await machine.run(['stat', '-Lc', '%a %U', file]), '600 web')
      const first = await machine.run(['cat', file])
      await assay('entry', 'update', '--entry-id', entry, '--dns', `${name}.test`)
      // Read by the program itself, as whom it runs.
      const read = await machine.until(['cat', `/run/${name}/read.pem`], ({ stdout }) => {
        return stdout !== '' && stdout.trimEnd() !== first
      })
      assert.match(read, /BEGIN PRIVATE KEY/)
      assert.equal(read, await machine.run(['cat', file]))
    }
  })

  step('read the configuration again', async () => {
    for (const [half, unit] of [
      ['server', serverUnit],
      ['agent', agentUnit],
    ] as const) {
      const pid = await pidOf(unit)
      await machine.sh(`
        sed -i 's/^log_level: info/log_level: debug/' /etc/assay/${half}.yaml
        systemctl reload ${unit}`)
      await machine.until(['journalctl', '--output=cat', `--unit=${unit}`], ({ stdout }) =>
        /the configuration was read again.*logLevel=debug/.test(stdout),
      )
      assert.equal(await pidOf(unit), pid)
    }
  })

  step(
    'give the lines of the log their priority in the journal, audit records one of their own',
    async () => {
      const lines = async (priority: number) =>
        (
          await machine.run([
            ...['journalctl', '--no-pager', '--output=cat', `_SYSTEMD_UNIT=${serverUnit}`],
            `PRIORITY=${priority}`,
          ])
        ).split('\n')
      const isAudit = (line: string) => / audit=true /.test(line)
      const [notices, infos] = [await lines(5), await lines(6)]
      assert.ok(notices.length > 3 && notices.every(isAudit), notices.join('\n'))
      assert.ok(infos.some((line) => / INFO /.test(line)) && !infos.some(isAudit), infos.join('\n'))
    },
  )

  step('serve again after a kill, and after a daemon that has stopped turning', async () => {
    await machine.sh(`
      printf '[Service]\\nWatchdogSec=2\\n' > /etc/systemd/system/assay-agent.service.d/watchdog.conf
      systemctl daemon-reload
      systemctl restart assay-agent`)
    for (const unit of [serverUnit, agentUnit]) {
      const pid = await pidOf(unit)
      await machine.run(['kill', '-KILL', pid])
      await machine.propertyBecomes(unit, 'MainPID', new RegExp(`^(?!${pid}$|0$)\\d+$`, 'm'))
      await machine.propertyBecomes(unit, 'ActiveState', /^active/)
    }
    const hung = await pidOf(agentUnit)
    await machine.run(['kill', '-STOP', hung])
    await machine.propertyBecomes(agentUnit, 'MainPID', new RegExp(`^(?!${hung}$|0$)\\d+$`, 'm'))
    assert.match(await journal(agentUnit), /Watchdog timeout/)
    await webIsServed()
    await machine.sh(`
      rm /etc/systemd/system/assay-agent.service.d/watchdog.conf
      systemctl daemon-reload`)
  })

  step('are upgraded, and restarted, without a workload that sees an error', async () => {
    const helper = await pidOf(helperUnit)
    await webIsServed()
    const watching = machine.spawn(['assay', 'watch', '--json'], 'web')
    let seen = ''
    watching.stdout?.setEncoding('utf8').on('data', (text: string) => {
      seen += text
    })
    let stop = false
    const failures: string[] = []
    let calls = 0
    const calling = async () => {
      while (!stop) {
        let last = await fetchAsWeb()
        // A call that is under way when an agent stops is made anew, as by every SPIFFE client: once, at once.
        if (/"code":"unavailable"/.test(last.stderr)) last = await fetchAsWeb()
        calls++
        if (last.status !== 0) failures.push(last.stderr)
      }
    }
    const loops = [calling(), calling()]
    // Every agent gets an SVID of its own, which the stream is sent.
    const updates = (count: number) =>
      machine.until(['true'], () => seen.split('\n').length > count)
    try {
      await updates(1)
      await machine.run(['systemctl', 'restart', agentUnit])
      await updates(2)
      await machine.run(['systemctl', 'restart', serverUnit])
      await installAll('new')
      await updates(3)
      assert.equal(watching.exitCode, null)
    } finally {
      stop = true
      await Promise.all(loops)
      await machine.run(['pkill', '--uid', 'web'])
    }
    assert.deepEqual(failures, [])
    assert.ok(calls >= 10, `${calls} calls`)
    assert.equal(await machine.run(['assay', '--version']), version)
    await machine.propertyBecomes(helperUnit, 'MainPID', new RegExp(`^(?!${helper}$|0$)\\d+$`, 'm'))
    await machine.propertyBecomes(helperUnit, 'ActiveState', /^active/)
    for (const unit of [serverUnit, agentUnit])
      assert.match(
        await journal(unit),
        new RegExp(`starting version=${version.replaceAll('.', '\\.')} `),
      )
  })

  step(
    'move PIN and library to a signer of its own, whom the server cannot reach but by its socket',
    async () => {
      const doctor = () => machine.try(['assay', 'doctor', 'server'])
      const isTold =
        /signer +the server starts it, as its own user.*mend: assay setup server --signer service/s
      assert.match((await doctor()).stdout, isTold)
      await machine.sh(`
      mkdir /etc/systemd/system/assay-signer@.service.d
      mv /etc/systemd/system/assay-server.service.d/softhsm.conf /etc/systemd/system/assay-signer@.service.d/`)
      const moving = ['assay', 'setup', 'server', '--signer', 'service']
      const rehearsal = await machine.try([...moving, '--dry-run'])
      assert.match(rehearsal.stderr, /\+ signer_socket_path: \/run\/assay-signer\/socket/)
      // SoftHSM's keys are files of whoever made the token.
      const [, mend = ''] =
        /: (chown -R assay-signer \/var\/lib\/softhsm\/\S+)$/m.exec(rehearsal.stderr) ?? []
      await machine.sh(mend)
      await machine.run(moving)
      assert.match((await doctor()).stdout, /ok +signer +a service of its own/)
      const dropIns = await machine.sh('ls /etc/systemd/system/assay-s*.d')
      assert.equal(dropIns.split('\n').filter((name) => name === 'hsm-pin.conf').length, 1)

      const [pin = ''] = (await machine.sh('ls /run/credentials/assay-s*/hsm-pin')).split('\n')
      assert.match(pin, /^\/run\/credentials\/assay-signer@/)
      assert.equal(await machine.run(['cat', pin], { user: 'assay-signer' }), '123456')
      assert.notEqual((await machine.try(['cat', pin], { user: 'assay-server' })).status, 0)
      const [instance = ''] = /assay-signer@[^/]+/.exec(pin) ?? []
      const mayStop = ['kill', '-STOP', await pidOf(instance)]
      assert.match((await machine.try(mayStop, { user: 'assay-server' })).stderr, /not permitted/)
      // Members of the server's group administer it, and sign nothing.
      const knock = `/usr/lib/assay/node -e '
      require("node:net").connect("/run/assay-signer/socket").on("error", ({ code }) => console.log(code)).on("connect", () => process.exit())'`
      const member = 'setpriv --reuid=games --regid=assay-server --clear-groups'
      assert.equal(await machine.sh(`${member} ${knock}`), 'EACCES')
      assert.equal(
        await machine.sh(`setpriv --reuid=assay-server --regid=games --clear-groups ${knock}`),
        '',
      )
      for (const [unit, worst] of [
        [instance, 0.5],
        [serverUnit, 1.5],
      ] as const) {
        const { stdout } = await machine.try(['systemd-analyze', 'security', '--no-pager', unit])
        const [, score] = /Overall exposure level for .*: ([\d.]+)/.exec(stdout) ?? []
        assert.ok(Number(score) <= worst, `${unit}: ${score}`)
      }

      const server = await pidOf(serverUnit)
      await machine.run(['systemctl', 'kill', '--signal=KILL', instance])
      await machine.until(
        ['systemctl', 'list-units', '--plain', '--no-legend', 'assay-signer@*'],
        ({ stdout }) => /running/.test(stdout) && !stdout.includes(instance),
      )
      await machine.until(['assay', 'hsm', 'status'], ({ stdout }) => /^Signing +ok/.test(stdout))
      assert.equal(await pidOf(serverUnit), server)
    },
  )

  step('name both versions to who goes back behind the datastore’s schema', async () => {
    const schema = `runuser -u assay-server -- /usr/lib/assay/node -e '
      const { DatabaseSync } = require("node:sqlite")
      const database = new DatabaseSync("/var/lib/assay/server/datastore.sqlite3")
      const [{ user_version: had }] = database.prepare("PRAGMA user_version").all()
      database.exec("PRAGMA user_version = " + process.argv[1])
      console.log(had)'`
    await machine.run(['systemctl', 'stop', serverUnit])
    const had = await machine.sh(`${schema} 99`)
    await installAll('old', '--allow-downgrades')
    await machine.try(['systemctl', 'start', serverUnit])
    assert.equal(await machine.property(serverUnit, 'ActiveState'), 'failed')
    assert.equal(await machine.property(serverUnit, 'ExecMainStatus'), '2')
    assert.match(
      await journal(serverUnit),
      new RegExp(`its schema is version 99 and this server knows up to ${had}`),
    )
    assert.match(await doctored(), /unit +assay-server\.service is failed.*mend: systemctl start/s)
    assert.match(
      await doctored(),
      new RegExp(
        `datastore +it has schema 99, and this is assay ${previous}, which knows schema ${had}`,
      ),
    )
    await installAll('new')
    await machine.sh(`${schema} ${had}`)
    await machine.run(['systemctl', 'start', serverUnit])
    await machine.run(['systemctl', 'disable', serverUnit])
    assert.match(
      await doctored(),
      /will not at the next boot.*mend: systemctl enable assay-server/s,
    )
    await machine.run(['systemctl', 'enable', serverUnit])
    await webIsServed()
  })

  step('start at boot', async () => {
    await machine[Symbol.asyncDispose]()
    machine = await bootMachine()
    for (const unit of [serverUnit, agentUnit])
      await machine.propertyBecomes(unit, 'ActiveState', /^active/)
    await webIsServed()
  })

  step('serve on a diskless node: a root that is read-only, and state in memory', async () => {
    await machine.run(['systemctl', 'stop', 'assay-agent.socket', agentUnit])
    const image = join(machineRoot, '..', 'image')
    await run('cp', ['--archive', machineRoot, image])
    await rm(join(image, 'etc/systemd/system/multi-user.target.wants', serverUnit))
    await using node = await DebianMachine.boot(image, {
      binds: [`${tpm.directory}:/run/swtpm`],
      diskless: true,
      networkOf: machine,
    })
    assert.notEqual((await node.try(['touch', '/etc/written'])).status, 0)
    const served = await node.until(
      ['assay', 'fetch', 'x509', '--json'],
      ({ status }) => status === 0,
      { user: 'web' },
    )
    assert.match(served, /spiffe:\/\/example\.org\/web/)
    assert.equal(await node.sh('stat -f -c %T /var/lib/assay/agent'), 'tmpfs')
  })

  step('are purged with what they made, and nothing else', async () => {
    await machine.run(['ls', '/run/assay-helper/signalled/web.pem'])
    await apt('purge', ...names)
    // The operator's own.
    const own = [
      '/etc/assay/bundle.pem',
      '/etc/assay/credentials/hsm-pin',
      '/etc/systemd/system/assay-signer@.service.d/hsm-pin.conf',
      '/etc/systemd/system/assay-signer@.service.d/softhsm.conf',
      '/etc/systemd/system/assay-agent.service.d/program-selectors.conf',
      '/etc/assay/helper/signalled.yaml',
    ]
    await machine.run(['ls', ...own])
    await machine.sh(`
      rm -r /etc/assay /etc/systemd/system/assay-*.d /etc/systemd/system/reloaded.service \
        /etc/systemd/system/signalled.service
      rm -r /var/lib/softhsm/tokens/* /root/*-answers.yaml
      rm -f /var/lib/systemd/credential.secret
      test ! -e /run/assay -a ! -e /run/assay-signer -a ! -e /run/assay-helper`)
    const left = await filesOf(machine)
    assert.deepEqual([...left.difference(untouched)], [])
    assert.deepEqual([...untouched.difference(left)], [])
    assert.match(
      await machine.read('/etc/passwd'),
      /assay-server.*\n.*assay-signer.*\n.*assay-agent/,
    )
  })

  it('are as Debian wants packages', async () => {
    assert.equal(await lintian, '')
  })
})

/** What `validate` complains of: the key, or the sentence where it is about several. */
function keysIn(problems: string): readonly string[] {
  return problems
    .trim()
    .split('\n')
    .map((line) => line.replace(/^\S+:\d+:\d+: /, '').split(/[:;] /)[0] ?? '')
}

/** Everything on the machine's disk, without what any program writes all the time. */
async function filesOf(machine: DebianMachine): Promise<ReadonlySet<string>> {
  const volatile = [
    '/dev',
    '/proc',
    '/sys',
    '/run',
    '/tmp',
    '/var/tmp',
    '/var/log',
    '/var/cache',
    '/srv',
  ]
  const skipped = volatile.flatMap((path) => ['-path', path, '-prune', '-o'])
  const list = await machine.run(['find', '/', ...skipped, '-printf', '%p %y %m\\n'])
  return new Set(list.split('\n').filter((line) => !isBookkeeping(line)))
}

/** What `assay setup` may write: names, modes, owners, times and contents, to be compared. */
const stateOf = (machine: DebianMachine): Promise<string> =>
  machine.sh(`
    for directory in /etc/assay /etc/systemd/system; do
      find $directory -printf '%p %y %m %u %T@\\n' -type f -exec sha256sum {} + ; done`)

const isBookkeeping = (line: string): boolean =>
  /^\/var\/lib\/(dpkg|apt)\/|^\/etc\/[a-z]+- |^\/var\/lib\/systemd\/(timers|random-seed|catalog)/.test(
    line,
  )

async function sha256(file: string): Promise<string> {
  return createHash('sha256')
    .update(await readFile(file))
    .digest('hex')
}
