// The whole product on real parts: a TPM, an HSM, a server, an agent, and workloads of different Unix users.
import { spawn } from 'node:child_process'
import { userInfo } from 'node:os'
import process from 'node:process'
import { createInterface } from 'node:readline'
import { Installation } from '../../test/support/installation.ts'
import { done, failure, heading, line } from './report.ts'

const root = new URL('../..', import.meta.url).pathname.replace(/\/$/, '')
const isRoot = process.getuid?.() === 0
const start = performance.now()

/** Users every Debian has: the first two run the workloads, the third has no entry. */
const users = { web: 'www-data', ledger: 'backup', stranger: 'games' } as const

interface Event {
  readonly event: string
  readonly [name: string]: unknown
}

/** What a workload, run as `user`, said, event by event. */
async function* workload(
  socket: string,
  { user, id }: { readonly user: string; readonly id: string },
  ...args: string[]
): AsyncGenerator<Event> {
  const program = [`${root}/scripts/demo/workload.ts`, user, `unix://${socket}`, id, ...args]
  const child = spawn(`${root}/scripts/node`, program, { stdio: ['ignore', 'pipe', 'inherit'] })
  for await (const text of createInterface({ input: child.stdout })) yield JSON.parse(text)
}

function find(events: readonly Event[], name: string): Event {
  const event = events.find((one) => one.event === name)
  if (event === undefined) throw new Error(`no ${name} in ${JSON.stringify(events)}`)
  return event
}

async function demonstrate(assay: Installation): Promise<void> {
  heading('The parts')
  const fingerprint = await assay.startTpm()
  done(
    'a TPM 2.0 with an endorsement key that its maker certified (swtpm)',
    `endorsement key ${fingerprint}  (assay tpm fingerprint)`,
  )
  await assay.makeToken()
  done(
    'a PKCS#11 token with a PIN (SoftHSM)',
    `the PIN is in ${assay.at('hsm/pin')}, mode 0400; only assay-signer reads it`,
  )

  heading('The authority')
  await assay.startServer('pkcs11')
  const hsm = (await assay.ask('hsm', 'status')) as {
    where: string
    keys: readonly { state: string }[]
  }
  const active = hsm.keys.filter(({ state }) => state === 'active').length
  done(
    'assay-server is up; it made its CA and JWT keys inside the token',
    `${hsm.where}: ${active} active keys, sensitive and not extractable  (assay hsm status)`,
  )
  const imported = await assay.allowTpm(fingerprint, 'node-1')
  done(
    'the inventory lets this TPM join, under the name node-1',
    `${imported.trim()}  (assay inventory import)`,
  )

  heading('The node')
  const agentStart = performance.now()
  await assay.startAgent()
  const agentMs = Math.round(performance.now() - agentStart)
  const [node] = (await assay.ask('agent', 'list')) as readonly { id: string }[]
  const nodeId = node?.id ?? ''
  done(
    `assay-agent started and proved itself by the TPM in ${agentMs} ms: credential activation and a quote`,
    `${nodeId}  (assay agent list)`,
  )
  // Without root no process can be another user: all of them are this one then.
  const runsAs = (user: string): string => (isRoot ? user : userInfo().username)
  const selector = (user: string): string =>
    isRoot ? `unix:user:${user}` : `unix:uid:${process.getuid?.()}`
  for (const name of ['web', 'ledger'] as const) {
    await assay.createEntry(nodeId, assay.id(`/${name}`), selector(users[name]))
  }
  done(
    `two workloads are registered: ${assay.id('/web')} for ${selector(users.web)}, ${assay.id('/ledger')} for ${selector(users.ledger)}`,
    'the agent was told at once: it holds a stream, it does not poll  (assay entry list)',
  )

  heading('The workloads')
  const socket = assay.workloadSocket
  const who = (name: keyof typeof users) => ({ user: users[name], id: assay.id(`/${name}`) })
  for (const name of ['web', 'ledger'] as const) {
    const events = await Array.fromAsync(workload(socket, who(name), 'fetch', 'payments'))
    const x509 = find(events, 'x509-svid')
    const jwt = find(events, 'jwt-svid')
    const minutes = Math.round((Number(x509['expiresAtSeconds']) * 1000 - Date.now()) / 60_000)
    done(
      `a process of ${runsAs(users[name])} asked the Workload API and got ${x509['id']}`,
      `X.509-SVID for ${minutes} minutes; ${jwt['algorithm']} JWT-SVID for ${JSON.stringify(jwt['audience'])}, which the agent validated`,
    )
  }
  const serving = workload(socket, who('ledger'), 'serve', assay.id('/web'))
  const listening = await serving.next()
  const called = workload(
    socket,
    who('web'),
    'call',
    String(listening.value?.['port']),
    assay.id('/ledger'),
  )
  const answer = find(await Array.fromAsync(called), 'answer')
  const caller = find(await Array.fromAsync(serving), 'caller')
  done(
    'the two talk mutual TLS, each having verified who the other is',
    `${caller['id']} → ${answer['id']}, key exchange ${answer['group']}: "${answer['text']}"`,
  )
  if (!isRoot)
    return line(
      '       (as root, the workloads are three different Unix users, and the third is refused)',
    )

  const refused = find(
    await Array.fromAsync(workload(socket, who('stranger'), 'fetch', 'payments')),
    'refused',
  )
  done(
    `a process of ${users.stranger}, for which there is no entry, was refused`,
    `${refused['code']}: ${refused['message']}`,
  )
  const why = await assay.tryAssay(
    'why',
    '--request',
    String(refused['requestId']),
    ...assay.atAgentAdministration(),
  )
  done(
    'an operator looks up why, by the request id in the refusal',
    (why.stdout || why.stderr).trim().replaceAll('\n', '\n       '),
  )
}

function nextSteps(assay: Installation): void {
  heading('Try next')
  const settings = [
    `ASSAY_SERVER_SOCKET=${assay.at('server.sock')}`,
    `ASSAY_AGENT_ADMIN_SOCKET=${assay.at('admin/admin.sock')}`,
    `SPIFFE_ENDPOINT_SOCKET=unix://${assay.workloadSocket}`,
    `SOFTHSM2_CONF=${assay.at('hsm/softhsm2.conf')}`,
  ]
  for (const setting of settings) line(`  export ${setting}`)
  line(`  # configured by ${assay.at('server.yaml')} and ${assay.at('agent.yaml')}`)
  for (const [command, meaning] of [
    ['bin/assay hsm status', 'the keys, where they are, what happens to them next'],
    ['bin/assay agent list', 'the nodes'],
    ['bin/assay entry list', 'who gets which identity'],
    ['bin/assay fetch x509', 'what this shell gets: nothing, for lack of an entry'],
    [`bin/assay why --user ${process.env['USER'] ?? 'root'}`, 'and why'],
    ['bin/assay watch', 'every rotation as it happens, once it has one'],
    ['bin/assay --help', 'everything else'],
  ] as const) {
    line(`  ${command.padEnd(28)} # ${meaning}`)
  }
}

/** Rejects at the first sign that nobody wants to see more; later ones are taken and change nothing. */
function interruption(): Promise<never> {
  const { promise, reject } = Promise.withResolvers<never>()
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => reject(new Interrupted(signal)))
  }
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', () => reject(new Interrupted('EPIPE')))
  }
  return promise
}

class Interrupted extends Error {
  override readonly name = 'Interrupted'
}

async function main(): Promise<number> {
  const keep = process.argv.includes('--keep')
  await using assay = new Installation()
  try {
    await Promise.race([demonstrate(assay), interruption()])
    line(`\nAll of it took ${((performance.now() - start) / 1000).toFixed(1)} s.`)
    if (!keep) {
      line('./demo --keep leaves everything running, and names commands to try.')
      return 0
    }
    nextSteps(assay)
    const pids = assay.daemons.map(({ pid }) => pid).join(' ')
    assay.release()
    line(`\nEverything runs on. To end it: kill ${pids}; rm -r ${assay.directory}`)
    return 0
  } catch (error) {
    if (error instanceof Interrupted) {
      failure(`interrupted (${error.message}); ending what was started`)
      return 130
    }
    failure(error instanceof Error ? error.message : String(error))
    for (const daemon of assay.daemons) {
      const tail = daemon.tail()
      if (tail !== '') line(`\n── the end of ${daemon.name}'s log\n${tail}`)
    }
    return 1
  }
}

process.exitCode = await main()
