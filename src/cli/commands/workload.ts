import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { encodePem } from '#pki/pem.ts'
import { WorkloadApi, type X509Context } from '#workload-client/workload-api.ts'
import {
  all,
  type Command,
  type CommandContext,
  nowSeconds,
  optional,
  required,
} from '../command.ts'
import { agentOptions, workloadEndpoint } from '../daemons.ts'
import { fields, timeLeftText, timeText } from '../print.ts'

const x509Record = (context: X509Context) => ({
  svids: context.svids.map(({ spiffeId, certificates: [leaf], certificates, hint }) => ({
    spiffe_id: spiffeId,
    serial_number: leaf?.serialNumber,
    not_before: timeText(leaf?.notBeforeSeconds ?? 0),
    not_after: timeText(leaf?.notAfterSeconds ?? 0),
    dns_names: leaf?.dnsNames,
    certificates: certificates.length,
    ...(hint !== '' && { hint }),
  })),
  bundles: Object.fromEntries([...context.bundles].map(([name, roots]) => [name, roots.length])),
})

function printX509(context: CommandContext, x509: X509Context): void {
  const now = nowSeconds(context)
  for (const { spiffeId, certificates, hint } of x509.svids) {
    const [leaf] = certificates
    for (const line of fields([
      ['SPIFFE ID', spiffeId],
      ['Hint', hint],
      ['Serial', leaf?.serialNumber ?? ''],
      ['Valid from', timeText(leaf?.notBeforeSeconds ?? 0)],
      ['Valid until', timeLeftText(leaf?.notAfterSeconds ?? 0, now)],
      ['DNS names', leaf?.dnsNames.join(', ') ?? ''],
      [
        'Chain',
        `${certificates.length === 1 ? 'leaf' : `leaf and ${certificates.length - 1} intermediate`}`,
      ],
    ])) {
      context.print(line)
    }
    context.print('')
  }
  for (const [name, roots] of x509.bundles)
    context.print(`Bundle of ${name}: ${roots.length} authorities`)
}

/** Files as SPIRE names them: svid.N.pem, svid.N.key, bundle.N.pem. */
async function writeX509(directory: string, x509: X509Context): Promise<readonly string[]> {
  await mkdir(directory, { recursive: true })
  const written: string[] = []
  const write = async (name: string, content: string, mode: number): Promise<void> => {
    const path = join(directory, name)
    await writeFile(path, content, { mode })
    written.push(path)
  }
  const pem = (ders: readonly Uint8Array[]): string =>
    ders.map((der) => encodePem('CERTIFICATE', der)).join('')
  for (const [index, svid] of x509.svids.entries()) {
    const [, , trustDomain = ''] = svid.spiffeId.split('/')
    const roots = [...x509.bundles].find(([name]) => name === trustDomain)?.[1] ?? []
    await write(`svid.${index}.key`, encodePem('PRIVATE KEY', svid.privateKey), 0o600)
    await write(`svid.${index}.pem`, pem(svid.certificates.map(({ raw }) => raw)), 0o644)
    await write(`bundle.${index}.pem`, pem(roots), 0o644)
  }
  return written
}

const timeoutOption = {
  name: 'timeout',
  value: 'SECONDS',
  summary: 'how long to wait for the agent; 10 when absent',
}

const signalOf = (context: CommandContext): AbortSignal =>
  AbortSignal.any([
    context.signal,
    AbortSignal.timeout(Number(optional(context, 'timeout') ?? 10) * 1000),
  ])

const fetchX509: Command = {
  name: 'fetch x509',
  summary: 'the X.509-SVIDs the calling process gets',
  options: [
    ...agentOptions,
    {
      name: 'write',
      value: 'DIRECTORY',
      summary: 'also write key, certificate and bundle files there',
    },
    timeoutOption,
  ],
  async run(context) {
    using api = new WorkloadApi(workloadEndpoint(context), context.clock)
    const x509 = await api.x509Context(signalOf(context))
    const directory = optional(context, 'write')
    const written = directory === undefined ? [] : await writeX509(directory, x509)
    if (context.json) return context.print(JSON.stringify({ ...x509Record(x509), written }))
    printX509(context, x509)
    for (const path of written) context.note(`wrote ${path}`)
  },
}

const fetchJwt: Command = {
  name: 'fetch jwt',
  summary: 'JWT-SVIDs of the calling process, for an audience',
  options: [
    ...agentOptions,
    {
      name: 'audience',
      value: 'NAME',
      multiple: true,
      required: true,
      summary: 'who the token is for',
    },
    { name: 'spiffe-id', value: 'ID', summary: 'only for this one of the identities' },
    timeoutOption,
  ],
  details: 'A JWT-SVID is a bearer secret: whoever reads it may use it until it expires.',
  async run(context) {
    using api = new WorkloadApi(workloadEndpoint(context), context.clock)
    const spiffeId = optional(context, 'spiffe-id')
    const svids = await api.jwtSvids(all(context, 'audience'), {
      signal: signalOf(context),
      ...(spiffeId !== undefined && { spiffeId }),
    })
    if (context.json) {
      return context.print(
        JSON.stringify(
          svids.map(({ spiffeId: id, token, hint }) => ({ spiffe_id: id, token, hint })),
        ),
      )
    }
    for (const { spiffeId: id, token, hint } of svids) {
      context.print(`${id}${hint === '' ? '' : ` (${hint})`}\n${token}\n`)
    }
  },
}

const fetchBundle: Command = {
  name: 'fetch bundle',
  summary: 'the trust bundles the calling process gets',
  options: [
    ...agentOptions,
    { name: 'format', value: 'FORMAT', summary: 'x509 (PEM, the default) or jwt (JWK sets)' },
    timeoutOption,
  ],
  async run(context) {
    using api = new WorkloadApi(workloadEndpoint(context), context.clock)
    if (optional(context, 'format') === 'jwt') {
      const bundles = [...(await api.jwtBundles(signalOf(context)))]
      if (context.json) {
        return context.print(
          JSON.stringify(
            Object.fromEntries(bundles.map(([name, json]) => [name, JSON.parse(json)])),
          ),
        )
      }
      for (const [name, json] of bundles) context.print(`${name}\n${json}\n`)
      return
    }
    const bundles = [...(await api.x509Bundles(signalOf(context)))]
    const pems = bundles.map(
      ([name, roots]) => [name, roots.map((der) => encodePem('CERTIFICATE', der))] as const,
    )
    if (context.json) return context.print(JSON.stringify(Object.fromEntries(pems)))
    for (const [name, roots] of pems) {
      context.note(`# ${name}`)
      context.print(roots.join('').trimEnd())
    }
  },
}

const validateJwt: Command = {
  name: 'validate jwt',
  summary: 'have the agent check a JWT-SVID that somebody presented',
  options: [
    ...agentOptions,
    { name: 'audience', value: 'NAME', required: true, summary: 'who the token must be for' },
    {
      name: 'svid',
      value: 'TOKEN',
      summary: "the token; read from standard input when absent or '-'",
    },
    timeoutOption,
  ],
  async run(context) {
    const given = optional(context, 'svid')
    const token = given === undefined || given === '-' ? (await context.readInput()).trim() : given
    using api = new WorkloadApi(workloadEndpoint(context), context.clock)
    const valid = await api.validateJwtSvid(token, {
      audience: required(context, 'audience'),
      signal: signalOf(context),
    })
    if (context.json)
      return context.print(JSON.stringify({ spiffe_id: valid.spiffeId, claims: valid.claims }))
    context.print(`valid: ${valid.spiffeId}`)
    context.print(JSON.stringify(valid.claims, undefined, 2))
  },
}

const watch: Command = {
  name: 'watch',
  summary: 'print every X.509 update the calling process gets, until interrupted',
  options: agentOptions,
  async run(context) {
    using api = new WorkloadApi(workloadEndpoint(context), context.clock)
    for await (const x509 of api.x509Contexts(context.signal)) {
      if (context.json) {
        context.print(JSON.stringify({ at: timeText(nowSeconds(context)), ...x509Record(x509) }))
        continue
      }
      context.print(`── ${timeText(nowSeconds(context))}`)
      printX509(context, x509)
    }
  },
}

export const workloadCommands: readonly Command[] = [
  fetchX509,
  fetchJwt,
  fetchBundle,
  validateJwt,
  watch,
]
