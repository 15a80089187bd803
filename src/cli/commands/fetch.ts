import { encodePem } from '#pki/pem.ts'
import type { X509Context } from '#workload-client/workload-api.ts'
import { all, type Command, choice, nowSeconds, optional, printText } from '../command.ts'
import { agentOptions, pqOption } from '../daemons.ts'
import { blocks, timeLeftText, timeValue } from '../print.ts'
import { certificatesPem, type SvidFile, writeSvidFiles } from '../svid-files.ts'
import { withWorkloadApi } from '../workload-call.ts'
import { printX509, x509Record } from '../x509-svids.ts'

/** Files as SPIRE names them. */
function svidFiles(x509: X509Context): readonly SvidFile[] {
  return x509.svids.flatMap(({ spiffeId, privateKey, certificates }, index) => {
    const [, , own = ''] = spiffeId.split('/')
    const bundles = [...x509.bundles]
    const ownRoots = bundles.filter(([name]) => name === own).flatMap(([, roots]) => roots)
    const others = bundles.filter(([name]) => name !== own)
    return [
      {
        name: `svid.${index}.key`,
        content: encodePem('PRIVATE KEY', privateKey),
        secret: true,
      },
      { name: `svid.${index}.pem`, content: certificatesPem(certificates.map(({ raw }) => raw)) },
      { name: `bundle.${index}.pem`, content: certificatesPem(ownRoots) },
      ...others.map(([, roots], other) => ({
        name: `federated_bundle.${index}.${other}.pem`,
        content: certificatesPem(roots),
      })),
    ]
  })
}

const fetchX509: Command = {
  name: 'fetch x509',
  summary: 'the X.509-SVIDs the calling process gets',
  options: [
    {
      name: 'write',
      value: 'DIRECTORY',
      summary: 'also write keys, certificates and bundles there; made with mode 0700',
    },
    pqOption,
    ...agentOptions,
  ],
  details: `
Files are svid.N.key (mode 0600), svid.N.pem, bundle.N.pem and federated_bundle.N.M.pem. A program that uses the
Workload API itself gets every renewal; files have to be fetched again before they expire.`,
  async run(context) {
    const x509 = await withWorkloadApi(context, (api) => api.x509Context(context.signal))
    const directory = optional(context, 'write')
    const written =
      directory === undefined ? [] : await writeSvidFiles(directory, svidFiles(x509), context)
    if (context.json) return context.print(JSON.stringify({ ...x509Record(x509), written }))
    printX509(context, x509)
    for (const path of written) context.note(`wrote ${path}`)
  },
}

const fetchJwt: Command = {
  name: 'fetch jwt',
  summary: 'JWT-SVIDs of the calling process, for an audience',
  options: [
    {
      name: 'audience',
      value: 'NAME',
      multiple: true,
      required: true,
      summary: 'who the token is for',
    },
    { name: 'spiffe-id', value: 'ID', summary: 'only for this one of the identities' },
    pqOption,
    ...agentOptions,
  ],
  details: 'A JWT-SVID is a bearer secret: whoever reads it may use it until it expires.',
  async run(context) {
    const spiffeId = optional(context, 'spiffe-id')
    const svids = await withWorkloadApi(context, (api) =>
      api.jwtSvids(all(context, 'audience'), {
        signal: context.signal,
        ...(spiffeId !== undefined && { spiffeId }),
      }),
    )
    if (context.json) {
      const records = svids.map((svid) => ({
        spiffe_id: svid.spiffeId,
        token: svid.token,
        expires_at: timeValue(svid.expiresAtSeconds),
        ...(svid.hint !== '' && { hint: svid.hint }),
      }))
      return context.print(JSON.stringify(records))
    }
    const now = nowSeconds(context)
    const shown = svids.map((svid) => [
      `${svid.spiffeId}${svid.hint === '' ? '' : ` (${svid.hint})`}, until ${timeLeftText(svid.expiresAtSeconds, now)}`,
      svid.token,
    ])
    for (const line of blocks(shown)) context.print(line)
  },
}

const formats = ['x509', 'jwt'] as const

const fetchBundle: Command = {
  name: 'fetch bundle',
  summary: 'the trust bundles the calling process gets',
  options: [
    {
      name: 'format',
      value: 'FORMAT',
      choices: formats,
      summary: 'x509 (PEM, the default) or jwt (JWK sets)',
    },
    pqOption,
    ...agentOptions,
  ],
  async run(context) {
    const { signal } = context
    if (choice(context, 'format', formats) === 'jwt') {
      const bundles = [...(await withWorkloadApi(context, (api) => api.jwtBundles(signal)))]
      if (context.json) {
        return context.print(
          JSON.stringify(
            Object.fromEntries(bundles.map(([name, json]) => [name, JSON.parse(json)])),
          ),
        )
      }
      for (const line of blocks(bundles)) context.print(line)
      return
    }
    const bundles = [...(await withWorkloadApi(context, (api) => api.x509Bundles(signal)))]
    const pems = bundles.map(
      ([name, roots]) => [name, roots.map((der) => encodePem('CERTIFICATE', der))] as const,
    )
    if (context.json) return context.print(JSON.stringify(Object.fromEntries(pems)))
    for (const [name, roots] of pems) {
      context.note(`# ${name}`)
      printText(context, roots.join('').trimEnd())
    }
  },
}

export const commands: readonly Command[] = [fetchX509, fetchJwt, fetchBundle]
