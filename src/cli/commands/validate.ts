import { type Command, optional, printText, readNamed, required, UsageError } from '../command.ts'
import { agentOptions, connectWorkloadApi, pqOption } from '../daemons.ts'

const validateJwt: Command = {
  name: 'validate jwt',
  summary: 'have the agent check a JWT-SVID that somebody presented',
  options: [
    { name: 'audience', value: 'NAME', required: true, summary: 'who the token must be for' },
    {
      name: 'svid-file',
      value: 'FILE',
      summary: "where the token is; standard input when absent or '-'",
    },
    {
      name: 'svid',
      value: 'TOKEN',
      summary:
        'the token itself, which every user of this machine then sees in the list of processes',
    },
    pqOption,
    ...agentOptions,
  ],
  details: `
  assay fetch jwt --audience db --json | jq -r '.[0].token' | assay validate jwt --audience db`,
  async run(context) {
    const given = optional(context, 'svid')
    const file = optional(context, 'svid-file')
    if (given !== undefined && file !== undefined)
      throw new UsageError('give the token by --svid-file or by --svid, not by both')
    const token = (given ?? (await readNamed(context, file ?? '-'))).trim()
    if (token === '') throw new UsageError('cannot validate a JWT-SVID: the token is empty')
    using api = await connectWorkloadApi(context)
    const { spiffeId, claims } = await api.validateJwtSvid(token, {
      audience: required(context, 'audience'),
      signal: context.signal,
    })
    if (context.json) return context.print(JSON.stringify({ spiffe_id: spiffeId, claims }))
    context.print(`valid: ${spiffeId}`)
    printText(context, JSON.stringify(claims, undefined, 2))
  },
}

export const commands: readonly Command[] = [validateJwt]
